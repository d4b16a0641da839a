"""A router that hashes token ids."""
