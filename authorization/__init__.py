"""The authorization service: OAuth 2.0 grants, and the access tokens that come of them."""
