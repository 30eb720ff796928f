"""Small programs that play the peers, each in a process of its own."""
