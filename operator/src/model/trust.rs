//! Which keys of `spec.trust` can be trusted. What is no key, or one by which anybody can sign, is told to no node: an
//! agent that finds one in its plan refuses every version of the Model.

use vigia_crds::Trust;
use vigia_crds::conditions::Wanted;
use vigia_model::keys::{KeyError, PublicKey};

/// The condition.
pub const KEYS_USABLE: &str = "KeysUsable";

/// The keys that can be used, as they are written.
pub fn usable(trust: &Trust) -> impl Iterator<Item = (&String, PublicKey)> {
    let keys = trust.public_keys.iter();
    keys.filter_map(|text| Some((text, PublicKey::parse(text).ok()?)))
}

/// What there is to say of the keys.
pub fn condition(trust: &Trust) -> Wanted {
    let keys = trust.public_keys.iter().enumerate();
    let unusable: Vec<(bool, String)> = keys
        .filter_map(|(index, text)| {
            let error = PublicKey::parse(text).err()?;
            let shown: String = text.chars().take(48).collect();
            let is_weak = matches!(error, KeyError::Weak);
            let why = if is_weak {
                "is of small order, so that anybody can sign by it"
            } else {
                "is no Ed25519 public key"
            };
            Some((is_weak, format!("spec.trust.publicKeys[{index}] ({shown}) {why}")))
        })
        .collect();
    if unusable.is_empty() {
        return Wanted::new(KEYS_USABLE, true, "AllUsable", "");
    }
    let reason = if unusable.iter().any(|(is_weak, _)| *is_weak) {
        "WeakKey"
    } else {
        "NoKey"
    };
    let which: Vec<String> = unusable.into_iter().map(|(_, which)| which).collect();
    let message = format!(
        "{}; no node trusts it: write the line that vigia keygen printed, or leave it out",
        which.join("; ")
    );
    Wanted::new(KEYS_USABLE, false, reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_crds::SMALL_ORDER;
    use vigia_model::keys::SigningKey;

    fn trust(keys: &[&str]) -> Trust {
        Trust {
            public_keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    #[test]
    fn each_key_that_cannot_be_used_is_named_and_left_out() {
        let good = SigningKey::from_seed([7; 32]).public().to_base64();
        let none = "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(condition(&trust(&[&good])).status, Some(true));
        let bad = trust(&[none, &good, SMALL_ORDER[2]]);
        let said = condition(&bad);
        assert_eq!((said.status, said.reason), (Some(false), "WeakKey"));
        for part in [
            "publicKeys[0] (AgAA",
            "is no Ed25519",
            "publicKeys[2] (AQAA",
            "small order",
        ] {
            assert!(said.message.contains(part), "{part} in {}", said.message);
        }
        assert_eq!(condition(&trust(&[none])).reason, "NoKey");
        let used: Vec<&String> = usable(&bad).map(|(text, _)| text).collect();
        assert_eq!(used, [&good]);
    }

    #[test]
    fn the_apis_list_of_weak_keys_has_no_good_one() {
        for key in SMALL_ORDER {
            assert!(PublicKey::parse(key).is_err(), "{key}");
        }
        let weak = SMALL_ORDER
            .iter()
            .filter(|key| matches!(PublicKey::parse(key), Err(KeyError::Weak)));
        assert!(weak.count() >= 8, "the points of small order are eight");
    }
}
