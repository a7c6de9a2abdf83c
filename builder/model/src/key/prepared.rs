//! A key that many signatures are held against.
//!
//! Ed25519's check is R = s·B − k·A, which takes 256 doublings of a point that is new each time. B and A are not: of both, every
//! d·256^i is kept (d of 1 to 255, i of 0 to 31), and a product is a sum of 32 of those. That is half of the time a signature,
//! and what is accepted is the same, bit for bit. All values are public, so the time may depend on them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, OnceLock};

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use ed25519_dalek as ed25519;
use sha2::{Digest as _, Sha512};

use super::{BadSignature, PublicKey};

/// Signatures after which a table pays for itself: one takes as long as it saves with a hundred.
const WORTH: u32 = 100;

/// Keys of one verifier that get a table, which has 1.3 MB.
pub const TABLES: usize = 32;

static BASE: LazyLock<Multiples> = LazyLock::new(|| Multiples::of(ED25519_BASEPOINT_POINT));

/// A key that gets a table of multiples once it has been used often.
pub struct Prepared {
    key: PublicKey,
    /// Signatures until then; `u32::MAX` for a key that shall get none.
    left: AtomicU32,
    table: OnceLock<Multiples>,
}

/// Every d·256^i of a point: `self.0[i][d - 1]`.
struct Multiples(Vec<[EdwardsPoint; 255]>);

impl Prepared {
    /// Takes `key`; `table` says whether it may get one.
    pub fn new(key: PublicKey, table: bool) -> Self {
        Self { key, left: AtomicU32::new(if table { WORTH } else { u32::MAX }), table: OnceLock::new() }
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What [`PublicKey::verify`] answers.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match &self.key {
            PublicKey::Ed25519(key) if self.is_due() => {
                let table = self.table.get_or_init(|| Multiples::of(-key.to_edwards()));
                let signature = signature.try_into().map_err(|_| BadSignature)?;
                table.verify(key, message, signature)
            }
            PublicKey::Ed25519(_) | PublicKey::P256(_) => self.key.verify(message, signature),
        }
    }

    fn is_due(&self) -> bool {
        match self.left.load(Ordering::Relaxed) {
            0 => true,
            u32::MAX => false,
            // Of several threads that count at once some are lost: it matters to nobody.
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Multiples {
    fn of(point: EdwardsPoint) -> Self {
        let mut unit = point;
        let row = |_| {
            let mut row = [unit; 255];
            for d in 1..row.len() {
                row[d] = row[d - 1] + unit;
            }
            unit += row[254];
            row
        };
        Self((0..32).map(row).collect())
    }

    fn times(&self, scalar: &Scalar) -> EdwardsPoint {
        let digits = self.0.iter().zip(scalar.as_bytes());
        let some = digits.filter_map(|(row, digit)| row.get(usize::from(*digit).checked_sub(1)?));
        some.fold(EdwardsPoint::identity(), |sum, multiple| sum + multiple)
    }

    /// RFC 8032, 5.1.7, without cofactor, as `VerifyingKey::verify_strict` does it: `self` is of −A.
    fn verify(&self, key: &ed25519::VerifyingKey, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        let (r, s) = signature.split_at(32);
        let s = s.try_into().ok().and_then(|s| Scalar::from_canonical_bytes(s).into_option()).ok_or(BadSignature)?;
        let hash = Sha512::new().chain_update(r).chain_update(key.as_bytes()).chain_update(message).finalize();
        let k = Scalar::from_bytes_mod_order_wide(&hash.into());
        let point = BASE.times(&s) + self.times(&k);
        // R is compared as it is spelled: of its spellings only the canonical one comes out here.
        match point.compress().as_bytes() == r && !point.is_small_order() {
            true => Ok(()),
            false => Err(BadSignature),
        }
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use proptest::prelude::*;

    use super::*;
    use crate::key::secret::samples::{ed25519, p256};

    fn due(key: PublicKey) -> Prepared {
        Prepared { key, left: AtomicU32::new(0), table: OnceLock::new() }
    }

    #[test]
    fn a_key_gets_its_table_after_a_hundred_signatures_and_answers_as_before() {
        for secret in [ed25519(1), p256(1)] {
            let often = Prepared::new(secret.public(), true);
            let never = Prepared::new(secret.public(), false);
            for n in 0..=WORTH {
                let message = n.to_le_bytes();
                let signature = secret.sign(&message);
                assert_eq!(often.verify(&message, &signature), Ok(()));
                assert_eq!(often.verify(b"another", &signature), Err(BadSignature));
                assert_eq!(never.verify(&message, &signature), Ok(()));
                for wrong in [&signature[..63], &[&signature[..], &[0]].concat(), b""] {
                    assert_eq!(often.verify(&message, wrong), Err(BadSignature));
                }
            }
            assert_eq!(often.table.get().is_some(), secret.public().ed25519().is_some());
            assert!(never.table.get().is_none());
        }
    }

    /// What honest signers never make: points with a part of small order in the key and in R, and s beyond the group's order.
    #[test]
    fn what_cofactors_and_spellings_are_about_is_judged_as_the_strict_verification_judges_it() {
        let (a, r) = (Scalar::from(77_777_u64), Scalar::from(1_234_567_u64));
        let (mut accepted, mut refused) = (0, 0);
        for torsion in EIGHT_TORSION {
            let point = ED25519_BASEPOINT_POINT * a + torsion;
            let key = ed25519::VerifyingKey::from_bytes(point.compress().as_bytes()).unwrap();
            let prepared = due(PublicKey::Ed25519(key));
            for second in EIGHT_TORSION {
                for nonce in [r, Scalar::ZERO] {
                    let spelled = (ED25519_BASEPOINT_POINT * nonce + second).compress();
                    for message in [&b"a"[..], b"b", b"c", b"d", b"e", b"f", b"g", b"h"] {
                        let hash = Sha512::new().chain_update(spelled.as_bytes()).chain_update(key.as_bytes());
                        let k = Scalar::from_bytes_mod_order_wide(&hash.chain_update(message).finalize().into());
                        let s = (nonce + k * a).to_bytes();
                        for s in [s, beyond(s)] {
                            let signature = [&spelled.as_bytes()[..], &s].concat();
                            let strict = prepared.key.verify(message, &signature);
                            assert_eq!(prepared.verify(message, &signature), strict);
                            *if strict.is_ok() { &mut accepted } else { &mut refused } += 1;
                        }
                    }
                }
            }
        }
        assert!(accepted > 50 && refused > 1500, "{accepted} accepted, {refused} refused");
    }

    /// s + L, the other spelling of the same number.
    fn beyond(s: [u8; 32]) -> [u8; 32] {
        let minus_one = (-Scalar::ONE).to_bytes();
        let mut carry = 1;
        std::array::from_fn(|i| {
            let sum = u16::from(s[i]) + u16::from(minus_one[i]) + carry;
            carry = sum >> 8;
            sum.to_le_bytes()[0]
        })
    }

    #[test]
    fn the_other_spelling_of_s_is_another_number() {
        let (two, more) = (Scalar::from(2_u64).to_bytes(), beyond(Scalar::from(2_u64).to_bytes()));
        assert_ne!(two, more);
        assert_eq!(Scalar::from_bytes_mod_order(more), Scalar::from(2_u64));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_key_message_and_flipped_bit_is_judged_alike(
            seed in any::<u8>(), message in proptest::collection::vec(any::<u8>(), 0..300), flip in 0..512_usize,
        ) {
            let secret = ed25519(seed);
            let prepared = due(secret.public());
            let mut signature = secret.sign(&message);
            prop_assert_eq!(prepared.verify(&message, &signature), Ok(()));
            signature[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(prepared.verify(&message, &signature), prepared.key.verify(&message, &signature));
        }
    }
}
