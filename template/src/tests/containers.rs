//! Container images: an OCI layout and what `docker save` writes.

use serde_json::json;

use super::*;

fn digest(bytes: &[u8]) -> String {
    archive::digest(&mut &*bytes).unwrap().to_string()
}

fn blob_name(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", digest(bytes).trim_start_matches("sha256:"))
}

/// Layers, packed as given, and what is said of them.
struct Image {
    layers: Vec<Vec<u8>>,
    packed: Vec<Vec<u8>>,
    architecture: &'static str,
    copies: usize,
}

impl Image {
    fn new(layers: Vec<Tar>) -> Self {
        let layers: Vec<Vec<u8>> = layers.into_iter().map(Tar::end).collect();
        let packed = layers.iter().enumerate().map(|(at, layer)| if at % 2 == 0 { gzip(layer) } else { zstd(layer) }).collect();
        Self { layers, packed, architecture: "amd64", copies: 1 }
    }

    fn config(&self) -> Vec<u8> {
        let digests: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        json!({"architecture": self.architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": digests}})
            .to_string()
            .into_bytes()
    }

    fn layout(&self) -> Tar {
        let config = self.config();
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
        let layers: Vec<_> = self.packed.iter().map(|layer| describe("layer.v1.tar+gzip", layer)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config), "layers": layers})
        .to_string()
        .into_bytes();
        let mut entry = describe("manifest.v1+json", &manifest);
        entry["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        let stranger = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(b"x"), "size": 1,
            "platform": {"architecture": "unknown", "os": "unknown"}});
        let mut manifests = vec![entry; self.copies];
        manifests.push(stranger);
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        // Blobs come first and the layers from the top: nothing may depend on the order.
        let tar = Tar::default().dir("blobs/").dir("blobs/sha256/");
        let tar = self.packed.iter().rev().fold(tar, |tar, layer| tar.file(&blob_name(layer), layer));
        tar.file(&blob_name(&config), &config)
            .file(&blob_name(&manifest), &manifest)
            .file("index.json", index.as_bytes())
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    fn saved(&self) -> Tar {
        let config = self.config();
        let name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let names: Vec<String> = (0..self.layers.len()).map(|at| format!("layer{at}/layer.tar")).collect();
        let manifest = json!([{"Config": name, "RepoTags": ["mine:1"], "Layers": names}]).to_string();
        let tar = names.iter().zip(&self.layers).fold(Tar::default(), |tar, (name, layer)| tar.file(name, layer));
        tar.file(&name, &config).file("manifest.json", manifest.as_bytes())
    }
}

fn example() -> Image {
    Image::new(vec![
        Tar::system()
            .file("etc/gone", b"1")
            .file("etc/kept", b"1")
            .file("opaque/old", b"1")
            .symlink("lib", "usr/lib")
            .dir("usr/lib"),
        Tar::default()
            .file("etc/.wh.gone", b"")
            .file("opaque/new", b"2")
            .file("opaque/.wh..wh..opq", b"")
            .file("etc/kept", b"2")
            .file("lib/through", b"2"),
        Tar::default().hard_link("etc/linked", "etc/kept"),
    ])
}

#[test]
fn layers_are_laid_over_each_other() {
    let flat = Tar::system()
        .file("etc/kept", b"2")
        .hard_link("etc/linked", "etc/kept")
        .file("opaque/new", b"2")
        .symlink("lib", "usr/lib")
        .dir("usr/lib")
        .file("usr/lib/through", b"2");
    let expected = real(&flat.end()).1;
    let (place, made) = real(&example().layout().end());
    assert_eq!(contents(&place, &made, "/usr/lib/through"), "2");
    assert_eq!(made.digest, expected.digest);
    assert_eq!(real(&gzip(&example().saved().end())).1.digest, expected.digest);
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let image = example();
    let other = Image { packed: vec![gzip(&Tar::system().file("evil", b"").end()); 3], ..example() };
    // The manifest names the true layers; another one lies at the place of the first.
    let tar = image.layout().file(&blob_name(&image.packed[0]), &other.packed[0]);
    let error = refused(tar.end().as_slice(), Limits::default());
    assert!(error.contains("layer 1 of 3") && error.contains("bytes, not"), "{error}");
    let mut same_size = image.packed[0].clone();
    same_size[9] ^= 1;
    let error = refused(image.layout().file(&blob_name(&image.packed[0]), &same_size).end().as_slice(), Limits::default());
    assert!(error.contains("damaged or forged"), "{error}");
    // Packed as named, but not what the configuration says.
    let error = refused(Image { layers: image.layers.clone(), ..other }.layout().end().as_slice(), Limits::default());
    assert!(error.contains("unpacks to"), "{error}");
    let error = refused(image.saved().file("layer1/layer.tar", &Tar::default().end()).end().as_slice(), Limits::default());
    assert!(error.contains("layer 2 of 3") && error.contains("unpacks to"), "{error}");
}

#[test]
fn images_that_cannot_run_here_say_why() {
    let of = |image: Image| (refused(image.layout().end().as_slice(), Limits::default()), image);
    let (error, image) = of(Image { architecture: "arm64", ..example() });
    assert!(error.contains("no image for linux/amd64"), "{error}");
    assert!(refused(image.saved().end().as_slice(), Limits::default()).contains("the image is for linux/arm64"));
    let application = Image::new(vec![Tar::default().program("usr/bin/app")]);
    let error = of(application).0;
    assert!(error.contains("no /sbin/init: an environment is a whole system"), "{error}");
    let saved = Tar::default().file("manifest.json", b"[]").end();
    assert!(refused(saved.as_slice(), Limits::default()).contains("0 images; save one"));
    let broken = Tar::default().file("manifest.json", br#"[{"Config":"c.json","Layers":["../x"]}]"#).end();
    assert!(refused(broken.as_slice(), Limits::default()).contains("the archive has no /c.json"));
}

#[test]
fn the_same_image_under_two_tags_is_one() {
    real(&Image { copies: 2, ..example() }.layout().end());
}

#[test]
fn layers_are_checked_as_roots_are() {
    let with = |layer: Tar| refused(Image::new(vec![Tar::system(), layer]).layout().end().as_slice(), Limits::default());
    assert!(with(Tar::default().device("dev/sda", "8:0")).contains("device node"));
    assert!(with(Tar::default().device("etc/gone", "0:0")).contains("device node"), "overlay's own kind of whiteout");
    assert!(with(Tar::default().file("../../x", b"")).contains("leads out"));
    assert!(with(Tar::default().file(".wh...", b"")).contains("cannot be"));
    assert!(with(Tar::default().symlink("x", "/nowhere").file("x/y", b"")).contains("to no directory"));
    let bomb = {
        let mut image = Image::new(vec![Tar::system()]);
        let mut zeros_layer = Vec::new();
        zeros(40 << 20).read_to_end(&mut zeros_layer).unwrap();
        image.packed.push(gzip(&zeros_layer));
        image.layers.push(zeros_layer);
        image.layout()
    };
    assert!(refused(bomb.end().as_slice(), Limits { free: 16 << 20, ..Limits::default() }).contains("a trap"));
}
