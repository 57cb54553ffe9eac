"""Foreign diffusion networks, for renderers and for mixing: read from their folders, called, and checked."""
