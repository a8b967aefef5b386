"""The introspection service: says to a resource server whether a token is active for it."""
