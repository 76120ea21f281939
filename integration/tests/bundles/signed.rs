// SPDX-License-Identifier: Apache-2.0
//! Signatures as cosign makes them, with openssl's hand; and a policy that demands them.

use std::fs;
use std::process::Command;

use serde_json::json;
use wsbox_integration::sandbox::outcome;

use crate::registry::Registry;
use crate::world::World;

fn openssl(world: &World, line: &str) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(line.split_whitespace()).current_dir(world.path(""));
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn key(world: &World, name: &str) {
    openssl(world, &format!("ecparam -genkey -name prime256v1 -noout -out {name}.key"));
    openssl(world, &format!("ec -in {name}.key -pubout -out {name}.pub"));
}

/// `cosign sign --key NAME.key`, for an image of this digest.
fn sign(world: &World, name: &str, digest: &str, kind: &str) {
    let payload = json!({"critical": {"identity": {"docker-reference": ""}, "image": {"docker-manifest-digest": digest}, "type": kind}, "optional": null});
    let payload = serde_json::to_vec(&payload).unwrap();
    fs::write(world.path("payload"), &payload).unwrap();
    fs::write(world.path("signature"), openssl(world, &format!("dgst -sha256 -sign {name}.key payload"))).unwrap();
    let base64 = outcome(Command::new("base64").args(["-w0"]).arg(world.path("signature"))).ok().stdout;
    let mut layer = world.put("application/vnd.dev.cosign.simplesigning.v1+json", &payload);
    let id = layer["digest"].clone();
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": base64});
    let config = json!({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [id]}, "history": [{"created": "0001-01-01T00:00:00Z"}]});
    let config = world.put("application/vnd.oci.image.config.v1+json", &serde_json::to_vec(&config).unwrap());
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer]});
    let mut entry = world.put("application/vnd.oci.image.manifest.v1+json", &serde_json::to_vec(&manifest).unwrap());
    let mut index = world.index();
    let image = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "sha256-");
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": format!("{image}.sig")});
    index["manifests"].as_array_mut().unwrap().push(entry);
    world.set_index(&index);
}

const KIND: &str = "cosign container image signature";

/// An image, two keys, and the image's digest.
fn world() -> (World, String) {
    let world = World::new();
    world.layout();
    key(&world, "ours");
    key(&world, "theirs");
    let digest = world.index()["manifests"][0]["digest"].as_str().unwrap().to_owned();
    (world, digest)
}

fn verify(world: &World, key: &str) -> wsbox_integration::Outcome {
    let (source, key) = (format!("oci:{}", world.text("layout")), world.text(key));
    world.engine.wsbox(&["bundle", "verify", &source, "--key", &key])
}

#[test]
fn verified() {
    let (world, digest) = world();
    let ours = world.text("ours.pub");
    verify(&world, "ours.pub").fails(1, &["has no signature", &digest]);
    world.create("oci:{}/layout", "none", &["--key", &ours]).fails(1, &["has no signature"]);
    sign(&world, "theirs", &digest, KIND);
    verify(&world, "ours.pub").fails(1, &["was not made with this key"]);
    sign(&world, "ours", &digest, KIND);
    assert!(verify(&world, "ours.pub").ok().stdout.contains(&digest));
    world.create("oci:{}/layout", "signed", &["--key", &ours, "--require-signature"]).ok();
    world.create("oci:{}/layout", "both", &["--key", "/nowhere.pub"]).fails(1, &["key /nowhere.pub"]);
    world.create("oci:{}/layout", "nobody", &["--require-signature"]).fails(1, &["--require-signature", "--key"]);
    let third = World::new();
    key(&third, "third");
    world
        .create("oci:{}/layout", "third", &["--key", &third.text("third.pub")])
        .fails(1, &["was not made with this key"]);
    verify(&world, "ours.key").fails(1, &["is no public key"]);
    world.assert_clean("third");
}

/// Where cosign keeps them: under a tag beside the image.
#[test]
fn of_a_registry() {
    let (world, digest) = world();
    sign(&world, "ours", &digest, KIND);
    let registry = Registry::start(&world, false);
    let (image, tag) = (registry.name("team/app:1"), digest.replace("sha256:", "sha256-") + ".sig");
    let copy = "skopeo --insecure-policy copy --preserve-digests --dest-tls-verify=false";
    world.tool(&format!("{copy} oci:layout:app {image}"));
    let (ours, theirs) = (world.text("ours.pub"), world.text("theirs.pub"));
    world.create(&image, "early", &["--key", &ours]).fails(1, &["has no signature"]);
    world.tool(&format!("{copy} oci:layout:{tag} {}", registry.name(&format!("team/app:{tag}"))));
    world.create(&image, "signed", &["--key", &ours]).ok();
    world.create(&image, "forged", &["--key", &theirs]).fails(1, &["was not made with this key"]);
    assert!(world.engine.wsbox(&["bundle", "verify", &image, "--key", &ours]).ok().stdout.contains(&digest));
}

#[test]
fn signatures_that_do_not_hold() {
    let (world, digest) = world();
    let other = format!("sha256:{}", "1".repeat(64));
    sign(&world, "ours", &other, KIND);
    verify(&world, "ours.pub").fails(1, &["is of another image", &other]);
    let (world, _) = self::world();
    sign(&world, "ours", &digest, "atomic container signature");
    verify(&world, "ours.pub").fails(1, &["which is no image's"]);
    // The image changes after it was signed.
    let (world, digest) = self::world();
    sign(&world, "ours", &digest, KIND);
    let signature = world.index()["manifests"][1].clone();
    world.tool("umoci config --image layout:app --config.user root");
    let mut changed = world.index();
    changed["manifests"].as_array_mut().unwrap().retain(|entry| entry["digest"] != signature["digest"]);
    changed["manifests"].as_array_mut().unwrap().push(signature);
    world.set_index(&changed);
    verify(&world, "ours.pub").fails(1, &["is of another image", &digest]);
}

#[test]
fn a_policy() {
    let (world, digest) = world();
    let policy = json!({"images": [
        {"pattern": "*/layout", "digest": true, "keys": [world.text("ours.pub")]},
        {"pattern": "*/more", "refuse": true}
    ]});
    fs::write(world.path("policy.json"), policy.to_string()).unwrap();
    let policy = world.text("policy.json");
    let create =
        |source: &str, name: &str, more: &[&str]| world.create(source, name, &[&["--policy", &policy], more].concat());
    create("oci:{}/layout", "a", &[]).fails(1, &["wants its digest"]);
    create("oci:{}/layout", "a", &["--digest", &digest]).fails(1, &["has no signature"]);
    sign(&world, "ours", &digest, KIND);
    create("oci:{}/layout", "a", &["--digest", &digest]).ok();
    create("oci:{}/more", "b", &[]).fails(1, &["the policy refuses"]);
    create("{}/root", "c", &[]).ok();
    fs::write(world.path("policy.json"), r#"{"images": [{"patern": "*"}]}"#).unwrap();
    create("{}/root", "d", &[]).fails(1, &["policy.json", "unknown field `patern`"]);
}
