"""The demo: the main job on real text, from profile to generation, as one table."""
