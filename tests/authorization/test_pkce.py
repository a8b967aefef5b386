"""RFC 7636: what a challenge and a verifier look like, and that nothing but S256 counts."""

import pytest

from authorization.pkce import challenge_of, is_challenge, is_verifier, verifies

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_example_of_the_rfc_holds() -> None:
    """RFC 7636, appendix B."""
    assert challenge_of(VERIFIER) == CHALLENGE
    assert verifies(VERIFIER, CHALLENGE)
    assert is_challenge(CHALLENGE)


@pytest.mark.parametrize(
    ("verifier", "good"),
    [
        ("a" * 42, False), ("a" * 43, True), ("a" * 128, True), ("a" * 129, False), ("", False), ("Az09-._~" * 6, True),
        ("a" * 43 + "\n", False), ("a" * 42 + "+", False), ("a" * 42 + "=", False), ("a" * 42 + "é", False),
    ],
)  # fmt: skip
def test_a_verifier_has_43_to_128_unreserved_characters(verifier: str, good: bool) -> None:
    """RFC 7636, 4.1; checklist, token endpoint (3): a short one could be guessed from its challenge."""
    assert is_verifier(verifier) is good
    assert not verifies(verifier, CHALLENGE)
    assert not verifies(verifier, verifier[:43])  # As `plain` would have it.


@pytest.mark.parametrize(
    "challenge", ["", CHALLENGE[:-1], CHALLENGE + "A", CHALLENGE + "=", CHALLENGE[:-1] + "N", "é" * 43]
)
def test_a_challenge_is_a_hash_in_base64url(challenge: str) -> None:
    """RFC 7636, 4.2: anything else could never be met, and is refused before the user signs in."""
    assert not is_challenge(challenge)
