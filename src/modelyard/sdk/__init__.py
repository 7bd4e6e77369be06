"""What programs and the command line use: find a server, apply objects, ask models. No terminal, no click."""
