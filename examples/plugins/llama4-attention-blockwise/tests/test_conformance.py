from llama4_core.testing import conformance_tests

test_blockwise = conformance_tests("attention_backends", "blockwise")
