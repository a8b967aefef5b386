"""The revocation service: RFC 7009, revocation by selector, and receipts that say who has adopted them."""
