"""Where records come from: the components of the socket ``data_sources`` that read real data."""
