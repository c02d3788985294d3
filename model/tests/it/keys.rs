//! Keys in every form they come in, and those that must not be taken.

use std::os::unix::fs::PermissionsExt;
use vigia_model::keys::{KeyError, PublicKey, SigningKey, TrustedKeys};

/// `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` of it.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

#[test]
fn pem_from_openssl_is_read_and_written() {
    // The pair is the example of RFC 8410, section 10.
    let key = SigningKey::parse(PRIVATE).expect("reads");
    assert_eq!(key.public().to_pem().expect("writes"), PUBLIC);
    assert_eq!(
        SigningKey::parse(&key.to_pem().expect("writes"))
            .expect("reads")
            .id(),
        key.id()
    );
    let trusted = TrustedKeys::parse(PUBLIC).expect("reads");
    assert_eq!(trusted.iter().next().map(|k| k.id()), Some(key.id()));
}

#[test]
fn base64_seeds_and_keys_are_read() {
    let key = SigningKey::parse(" BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").expect("reads");
    assert_eq!(key.id(), SigningKey::from_seed([7; 32]).id());
    let list = format!(
        "# operators\n{}\n\n{PUBLIC}\n{}\n",
        key.public().to_base64(),
        key.public().to_base64()
    );
    assert_eq!(TrustedKeys::parse(&list).expect("reads").iter().count(), 2);
}

#[test]
fn a_key_says_its_kind_and_is_not_taken_for_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key");
    let load = |text: &str| {
        std::fs::write(&path, text).expect("writes");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        SigningKey::load(&path)
    };
    let (marked, key) = (SigningKey::to_text(&[7; 32]), SigningKey::from_seed([7; 32]));
    let bare = marked.rsplit_once(':').expect("a mark").1;
    assert_eq!(load(&format!("{marked}\n")).expect("a key").id(), key.id());
    assert!(load(PRIVATE).is_ok());
    assert!(matches!(load(bare), Err(KeyError::UnmarkedSigning)));
    for text in [marked.as_str(), PRIVATE] {
        assert!(matches!(PublicKey::parse(text), Err(KeyError::Private)), "{text}");
    }
    let content = "vigia-content-key:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    assert!(matches!(PublicKey::parse(content), Err(KeyError::ForContent)));
}

#[test]
fn ids_are_stable_names() {
    let key = SigningKey::from_seed([7; 32]);
    assert_eq!(key.id().to_string().len(), 16);
    assert_ne!(key.id(), SigningKey::from_seed([8; 32]).id());
    assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
}

#[test]
fn generated_keys_differ() {
    let (a, b) = (
        SigningKey::generate().expect("random"),
        SigningKey::generate().expect("random"),
    );
    assert_ne!(a.id(), b.id());
}

#[test]
fn a_typing_error_never_shrinks_the_set() {
    for bad in [
        "nonsense",
        "AAAA",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        PRIVATE,
        &PUBLIC[..60],
    ] {
        assert!(TrustedKeys::parse(&format!("{PUBLIC}{bad}\n")).is_err(), "{bad}");
    }
    assert!(TrustedKeys::parse("").is_ok_and(|keys| keys.is_empty()));
    assert!(matches!(
        TrustedKeys::parse(&"\n".repeat(20_000)),
        Err(KeyError::TooLarge)
    ));
    assert!(SigningKey::parse(PUBLIC).is_err());
    assert!(SigningKey::parse("AAAA").is_err());
}

#[test]
fn a_signing_key_that_others_can_read_is_not_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("key.pem");
    std::fs::write(&path, PRIVATE).expect("writes");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    for bad in [0o640, 0o604, 0o644, 0o660] {
        mode(bad);
        assert!(matches!(SigningKey::load(&path), Err(KeyError::Mode { mode, .. }) if mode == bad));
    }
    for good in [0o600, 0o400] {
        mode(good);
        assert!(SigningKey::load(&path).is_ok());
    }
    assert!(matches!(
        SigningKey::load(&folder.path().join("none")),
        Err(KeyError::Io { .. })
    ));
}
