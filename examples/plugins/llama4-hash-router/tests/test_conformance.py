from llama4_core.testing import conformance_tests

test_hash = conformance_tests("routers", "hash")
