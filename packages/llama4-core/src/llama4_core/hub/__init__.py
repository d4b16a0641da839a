"""Repositories of the Hugging Face Hub: the local cache, downloads, and reading by range."""
