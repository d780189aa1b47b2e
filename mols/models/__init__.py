"""The networks: the trunk that is trained, and the proxies that give rewards."""
