"""Models from a hub: what is there, fetching it, and the shelf where it is kept."""
