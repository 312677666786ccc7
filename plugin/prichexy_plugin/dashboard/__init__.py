"""What the plugin serves under /prichexy: pages for people, a REST API for programs."""
