"""Signatures as JWS wants them, from what the library makes."""

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import event, given
from hypothesis import strategies as st

from keyturn import entropy
from keyturn.contract.jwk import ALGORITHMS, at_fixed_width, load_public, public_jwk, sign_each


@pytest.mark.parametrize(("width", "bits"), [(32, 256), (48, 384)])
def test_both_numbers_stand_at_their_fixed_width_whatever_their_size(width: int, bits: int) -> None:
    """RFC 7518, 3.4: a number with its high bit set gets a byte more in DER, a small one fewer; JWS wants neither."""
    numbers = st.integers(1, 2**bits - 1) | st.integers(1, 2**20) | st.integers(2 ** (bits - 1), 2**bits - 1)

    @given(numbers, numbers)
    def check(r: int, s: int) -> None:
        if max(r, s).bit_length() == bits:
            event("a number with its high bit set")
        if min(r, s).bit_length() <= bits - 8:
            event("a number shorter than its width")
        der = encode_dss_signature(r, s)
        assert decode_dss_signature(der) == (r, s)
        assert at_fixed_width(der, width) == r.to_bytes(width, "big") + s.to_bytes(width, "big")

    check()


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_each_message_gets_its_own_signature_in_order(alg: str) -> None:
    """A batch must not mix up whose signature is whose."""
    private = entropy.new_key(alg)
    public = load_public(public_jwk(private.public_key()), alg)
    messages = [b"first", b"second", b"third"]
    signatures = sign_each(alg, messages, private)
    for number, message in enumerate(messages):
        good = [ALGORITHMS[alg].verify(message, public, signature) for signature in signatures]
        assert good == [number == other for other in range(len(messages))]
