"""What stands between an encoder and a text model."""
