"""Small servers over loopback that keep the documented protocols of real ones."""
