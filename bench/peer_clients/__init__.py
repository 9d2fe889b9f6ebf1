"""The parts of bench/peers.py: where the peers are installed, how each is run and read, and what their figures mean against the server's."""
