"""Keys that must not sign or vouch for anything, however well they are formed: weak RSA above all."""

from collections.abc import Sequence
from math import isqrt

from keyturn.contract.errors import MalformedInput
from keyturn.contract.jwk import SMALLEST_RSA_BITS

LARGEST_RSA_BITS = 8192  # More would make each verification a burden on every API.
LARGEST_EXPONENT_BITS = 32
_ROCA_GENERATOR = 65537


def _primes(below: int) -> tuple[int, ...]:
    return tuple(n for n in range(2, below) if all(n % divisor for divisor in range(2, int(n**0.5) + 1)))


_SMALL_PRIMES = _primes(1000)
# ROCA (CVE-2017-15361): Infineon's library made primes k * M + (65537^a mod M), M the product of the first primes, all
# up to 167 at the least. Their product is then a power of 65537 modulo each of these primes; of other moduli about one
# in 2^28 is. Whether it is a power is asked of the finished list of powers, since they are few.
_ROCA_RESIDUES = tuple(
    (prime, frozenset(pow(_ROCA_GENERATOR, exponent, prime) for exponent in range(prime - 1)))
    for prime in _primes(168)
    if prime != 2  # noqa: PLR2004 - every modulus is odd, so two tells nothing
)
_FERMAT_ROUNDS = 64


def check_rsa(modulus: int, exponent: int) -> None:
    """Raise MalformedInput for an RSA key that can be broken or bears too much, naming why and the mend."""
    mend = "make a new key; this one must not vouch for anything"
    bits = modulus.bit_length()
    if bits < SMALLEST_RSA_BITS:
        raise MalformedInput(f"an RSA key of {bits} bits is weak, {SMALLEST_RSA_BITS} are the least: {mend}")
    if bits > LARGEST_RSA_BITS:
        raise MalformedInput(f"an RSA key of {bits} bits slows every verifier, {LARGEST_RSA_BITS} are the most")
    if exponent <= 1 or exponent % 2 == 0:
        raise MalformedInput(
            f"the RSA exponent is {'1' if exponent == 1 else 'even'}, so that it protects nothing: {mend}"
        )
    if exponent.bit_length() > LARGEST_EXPONENT_BITS:
        raise MalformedInput(f"an RSA exponent of {exponent.bit_length()} bits slows every verifier: {mend}")
    if any(modulus % prime == 0 for prime in _SMALL_PRIMES):
        raise MalformedInput(f"the RSA modulus has a small factor: {mend}")
    if has_roca_fingerprint(modulus):
        raise MalformedInput(f"the RSA key has the ROCA fingerprint (CVE-2017-15361) and can be factored: {mend}")
    if _has_close_primes(modulus):
        raise MalformedInput(f"the two primes of the RSA key are so close that it can be factored: {mend}")


def has_roca_fingerprint(modulus: int) -> bool:
    """Say whether a modulus is, modulo each prime up to 167, a power of 65537."""
    return all(modulus % prime in residues for prime, residues in _ROCA_RESIDUES)


def _has_close_primes(modulus: int) -> bool:
    """Try Fermat's factoring for a few rounds: n = a^2 - b^2 with a near the square root of n."""
    root = isqrt(modulus - 1) + 1
    return any(isqrt(rest) ** 2 == rest for rest in ((root + step) ** 2 - modulus for step in range(_FERMAT_ROUNDS)))


def check_names(kids: Sequence[str]) -> None:
    """Raise MalformedInput where two keys bear one kid: nobody could say which of them signed."""
    for kid in kids:
        if kids.count(kid) > 1:
            raise MalformedInput(f"two keys have the kid {kid!r}: give each a name of its own")
