//! Ed25519 `verify_strict` over ring's SHA-512, which takes a quarter less time than sha2's: of a large artifact, hashing
//! for the signature takes as long as all the rest.
//!
//! ed25519-dalek lets its callers choose the hash for lax verification alone (`hazmat::raw_verify`: s is canonical, R is
//! what the equation without the cofactor gives, byte for byte). What its `verify_strict` asks beside that is asked here:
//! that R is a point, and that neither R nor the key is of small order. Tests hold the two against each other.

use ed25519_dalek::hazmat::raw_verify;
use ed25519_dalek::{Signature, VerifyingKey};
use ring::digest::{Context, SHA512};
use sha2::digest::typenum::U64;
use sha2::digest::{FixedOutput, HashMarker, Output, OutputSizeUser, Update};

/// Whether the key signed this message, as `VerifyingKey::verify_strict` has it.
pub(crate) fn verifies(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    // A key is decompressed as R is, and no more is asked of it.
    let r = VerifyingKey::from_bytes(signature.r_bytes());
    let strict = r.is_ok_and(|r| !r.is_weak()) && !key.is_weak();
    strict && raw_verify::<Sha512>(key, message, signature).is_ok()
}

/// ring's, as ed25519-dalek takes it.
struct Sha512(Context);

impl Default for Sha512 {
    fn default() -> Self {
        Self(Context::new(&SHA512))
    }
}

impl HashMarker for Sha512 {}

impl OutputSizeUser for Sha512 {
    type OutputSize = U64;
}

impl Update for Sha512 {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

impl FixedOutput for Sha512 {
    fn finalize_into(self, out: &mut Output<Self>) {
        out.copy_from_slice(self.0.finish().as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    /// The order of the group that is signed in (RFC 8032, section 5.1), lowest byte first.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    /// Every encoding of a point of small order whose y is 0, 1, -1, or one of these above the field's order.
    fn small_order() -> Vec<[u8; 32]> {
        let field =
            |low: u8| std::array::from_fn(|i| [low, 0xff, 0x7f][usize::from(i > 0) + usize::from(i == 31)]);
        let small = |low: u8| std::array::from_fn(|i| if i == 0 { low } else { 0 });
        let of_order_8 = [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ];
        let by_y: [[u8; 32]; 6] = [
            small(0),
            small(1),
            field(0xec),
            field(0xed),
            field(0xee),
            of_order_8,
        ];
        let with_sign = |mut y: [u8; 32]| {
            y[31] |= 0x80;
            y
        };
        by_y.into_iter().flat_map(|y| [y, with_sign(y)]).collect()
    }

    fn agree(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
        let strict = key.verify_strict(message, signature).is_ok();
        assert_eq!(verifies(key, message, signature), strict, "{key:?} {signature:?}");
        strict
    }

    proptest! {
        // Without optimisation each takes milliseconds.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_was_signed_verifies_and_what_was_changed_does_not(
            seed: [u8; 32], message in prop::collection::vec(any::<u8>(), 0..400), bit in 0usize..512,
        ) {
            let key = SigningKey::from_bytes(&seed);
            let signature = key.sign(&message);
            prop_assert!(agree(&key.verifying_key(), &message, &signature));
            let mut changed = signature.to_bytes();
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!agree(&key.verifying_key(), &message, &Signature::from_bytes(&changed)));
            let mut longer = message;
            longer.push(0);
            prop_assert!(!agree(&key.verifying_key(), &longer, &signature));
        }

        #[test]
        fn an_s_that_is_not_reduced_does_not_verify(seed: [u8; 32], message: [u8; 8]) {
            let key = SigningKey::from_bytes(&seed);
            let mut bytes = key.sign(&message).to_bytes();
            let mut carry = 0;
            for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
                let sum = u16::from(*byte) + u16::from(order) + carry;
                *byte = sum as u8;
                carry = sum >> 8;
            }
            prop_assert!(!agree(&key.verifying_key(), &message, &Signature::from_bytes(&bytes)));
        }

        #[test]
        fn any_64_bytes_are_judged_alike(seed: [u8; 32], bytes: [[u8; 32]; 2], message: [u8; 8]) {
            let key = SigningKey::from_bytes(&seed).verifying_key();
            agree(&key, &message, &Signature::from_components(bytes[0], bytes[1]));
        }
    }

    #[test]
    fn a_key_of_mixed_order_verifies_where_the_equation_without_the_cofactor_holds() {
        let seed = [5; 32];
        let (key, expanded) = (SigningKey::from_bytes(&seed), ExpandedSecretKey::from(&seed));
        let torsion = VerifyingKey::from_bytes(&small_order()[10])
            .expect("a point")
            .to_edwards();
        let mixed = VerifyingKey::from(key.verifying_key().to_edwards() + torsion);
        let held = (0..48u8).filter(|&message| {
            let signature = raw_sign::<sha2::Sha512>(&expanded, &[message], &mixed);
            agree(&mixed, &[message], &signature)
        });
        // Where the hash is a multiple of the torsion's order, 8.
        assert!((1..24).contains(&held.count()));
    }

    #[test]
    fn points_of_small_order_sign_nothing() {
        let good = SigningKey::from_bytes(&[7; 32]);
        let zero = [0; 32];
        let mut lax = 0;
        for a in small_order() {
            let Ok(key) = VerifyingKey::from_bytes(&a) else {
                continue;
            };
            assert!(key.is_weak(), "{a:?}");
            for r in small_order().into_iter().chain([
                good.verifying_key().to_bytes(),
                good.sign(b"m").to_bytes()[..32].try_into().expect("32"),
            ]) {
                let signature = Signature::from_components(r, zero);
                assert!(!agree(&key, b"m", &signature));
                lax += usize::from(raw_verify::<Sha512>(&key, b"m", &signature).is_ok());
                // And as R beside a key that is as it should be.
                assert!(!agree(
                    &good.verifying_key(),
                    b"m",
                    &Signature::from_components(r, zero)
                ));
            }
        }
        assert!(lax > 0, "lax verification refuses these by itself");
    }
}
