"""DKD in the harnesses of others."""
