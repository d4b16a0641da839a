"""Complete plugin packages, written by ``llama4 new``. Imports without torch."""
