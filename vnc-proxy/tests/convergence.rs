//! Whatever happens to the picture, a viewer ends with exactly its pixels.

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "support/decode.rs"]
mod decode;

use std::time::{Duration, Instant};

use decode::{BGRX, Decoded, Decoder, Format, RGBX};
use proptest::prelude::*;
use yunju_protocol::display::Rect;
use yunju_vnc_proxy::encode::{Encoder, Limits, STILL, Thrift};
use yunju_vnc_proxy::picture::Picture;
use yunju_vnc_proxy::rfb::encodings::Abilities;
use yunju_vnc_proxy::rfb::outgoing::Update;
use yunju_vnc_proxy::rfb::pixel::PixelFormat;
use yunju_vnc_proxy::screen::{Screen, Watch};

const SIZE: (u32, u32) = (333, 257);
const JPEG_QUALITY_6: i32 = -26;
const H264: i32 = 50;

/// Something that a guest does to its screen.
#[derive(Debug, Clone)]
enum Deed {
    Fill(Rect, u32),
    Text(Rect, u32),
    Photo(Rect, u32),
    Move(Rect, i32, i32),
    /// So many pictures of a video.
    Video(Rect, u32, u32),
    /// Nothing for so many milliseconds.
    Rest(u64),
    Nothing(Rect),
    /// Not painting, but letting the viewer look.
    Look,
}

fn rects() -> impl Strategy<Value = Rect> {
    (0..SIZE.0, 0..SIZE.1, 1..SIZE.0, 1..SIZE.1)
        .prop_map(|(x, y, width, height)| Rect { x, y, width, height }.intersection(&Rect::of_size(SIZE.0, SIZE.1)))
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        (rects(), any::<u32>()).prop_map(|(rect, colour)| Deed::Fill(rect, colour & 0xff_ffff)),
        (rects(), any::<u32>()).prop_map(|(rect, seed)| Deed::Text(rect, seed)),
        (rects(), any::<u32>()).prop_map(|(rect, seed)| Deed::Photo(rect, seed)),
        (rects(), -90..90i32).prop_map(|(rect, dy)| Deed::Move(rect, 0, dy)),
        (rects(), -90..90i32, -90..90i32).prop_map(|(rect, dx, dy)| Deed::Move(rect, dx, dy)),
        (0..100u32, 0..80u32, any::<u32>(), 1..40u32).prop_map(|(x, y, seed, pictures)| {
            Deed::Video(Rect { x, y, width: 233 - seed % 30, height: 177 - seed % 20 }, seed, pictures)
        }),
        (1..2500u64).prop_map(Deed::Rest),
        rects().prop_map(Deed::Nothing),
        Just(Deed::Look),
    ];
    proptest::collection::vec(deed, 1..12)
}

fn mix(x: u32, y: u32, seed: u32) -> u32 {
    let mut value = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca6b) ^ seed;
    value ^= value >> 15;
    value = value.wrapping_mul(0x2c1b_3c6d);
    value ^ value >> 13
}

struct Scene {
    screen: Screen,
    watch: std::sync::Arc<Watch>,
    guest: Picture,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let screen = Screen::default();
        screen.show(SIZE, Rect::default(), |_, _, _| false);
        let watch = screen.watch();
        Self { screen, watch, guest: Picture::black(SIZE.0, SIZE.1), now: Instant::now() }
    }

    fn paint(&mut self, rect: Rect, pixel: impl Fn(u32, u32) -> u32) {
        for y in rect.y..rect.bottom() {
            for (x, out) in (rect.x..).zip(self.guest.span_mut(rect.x, y, rect.width)) {
                *out = pixel(x, y);
            }
        }
        self.flush(rect);
    }

    fn flush(&self, damage: Rect) {
        self.screen.show_at(self.now, SIZE, damage, |x, y, row| {
            row.copy_from_slice(self.guest.span(x, y, row.len() as u32));
            true
        });
    }

    fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Fill(rect, colour) => self.paint(rect, |_, _| colour),
            Deed::Text(rect, seed) => {
                let ink = |x, y| if mix(x / 3, y / 5, seed).is_multiple_of(4) { seed & 0x7f_7f7f } else { 0xf0_f0f0 };
                self.paint(rect, ink);
            }
            Deed::Photo(rect, seed) => self.paint(rect, |x, y| {
                let soft = |shift: u32| (x * (1 + (seed >> shift & 1)) + y) / 2 % 256;
                (soft(0) << 16 | soft(1) << 8 | soft(2)) ^ mix(x, y, seed) & 0x07_0707
            }),
            Deed::Move(rect, dx, dy) => {
                let before = self.guest.clone();
                self.paint(rect, |x, y| {
                    let column = x.checked_add_signed(-dx).filter(|from| (rect.x..rect.right()).contains(from));
                    let row = y.checked_add_signed(-dy).filter(|from| (rect.y..rect.bottom()).contains(from));
                    before.span(column.unwrap_or(x), row.unwrap_or(y), 1)[0]
                });
            }
            Deed::Video(rect, seed, picture) => self.paint(rect, |x, y| {
                let soft = |by: u32| (x * by + y + picture * 3) / 2 % 256;
                (soft(1) << 16 | soft(2) << 8 | soft(3)) ^ mix(x, y, seed ^ picture) & 0x0f_0f0f
            }),
            Deed::Rest(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Deed::Nothing(rect) => self.flush(rect),
            Deed::Look => {}
        }
    }
}

/// Sends what is there to send, and has it decoded.
fn look(
    scene: &Scene,
    encoder: &mut Encoder,
    decoder: &mut Decoder,
    abilities: &Abilities,
) -> Option<(Decoded, usize)> {
    let damaged = scene.watch.damage().take_within(Rect::of_size(SIZE.0, SIZE.1));
    exchange(abilities, decoder, |update| {
        encoder
            .encode(&scene.screen, damaged, Rect::of_size(SIZE.0, SIZE.1), abilities, scene.now, update)
            .expect("the viewer has the size");
    })
}

fn exchange(
    abilities: &Abilities,
    decoder: &mut Decoder,
    encode: impl FnOnce(&mut Update<'_>),
) -> Option<(Decoded, usize)> {
    let mut bytes = Vec::new();
    let mut sink = |piece: Vec<u8>| {
        bytes.extend(piece);
        true
    };
    let mut update = Update::new(abilities.last_rect, &mut sink);
    encode(&mut update);
    if !update.end(&[]) {
        return None;
    }
    let mut input = &bytes[1..];
    let decoded = decoder.update(&mut input).expect("a whole update");
    assert!(input.is_empty(), "nothing is left after the last rectangle");
    Some((decoded, bytes.len()))
}

fn refresh(scene: &Scene, encoder: &mut Encoder, decoder: &mut Decoder, abilities: &Abilities) {
    let later = scene.now + STILL + Duration::from_secs(1);
    while encoder.refresh_at(&scene.screen).is_some() {
        exchange(abilities, decoder, |update| {
            encoder.refresh(&scene.screen, abilities, later, update).expect("the viewer has the size");
        });
    }
}

fn shown(scene: &Scene, format: Format) -> Vec<u32> {
    scene.guest.rows(scene.guest.bounds()).flatten().map(|pixel| format.shown(*pixel)).collect()
}

fn parsed(format: Format) -> PixelFormat {
    let wire = format.wire().try_into().expect("16 bytes");
    PixelFormat::parse(&wire).expect("a good format")
}

const FORMATS: [Format; 7] = [
    BGRX,
    RGBX,
    Format(32, 24, true, [255; 3], [16, 8, 0]),
    Format(32, 24, false, [255; 3], [24, 16, 8]),
    Format(32, 24, true, [255; 3], [24, 16, 8]),
    Format(16, 16, false, [31, 63, 31], [11, 5, 0]),
    Format(8, 8, false, [7, 7, 3], [0, 3, 6]),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn an_idle_viewer_ends_with_exactly_the_pixels_of_the_screen(
        deeds in deeds(),
        encoding in prop::sample::select(vec![0, 16, 7]),
        format in prop::sample::select(FORMATS.to_vec()),
        copy_rect: bool, last_rect: bool, jpeg: bool, h264: bool,
        bytes in prop::sample::select(vec![usize::MAX, 3000]),
        thrift in prop::sample::select(vec![Thrift::None, Thrift::Some, Thrift::Much]),
    ) {
        let mut list = vec![encoding];
        let optional = [(copy_rect, 1), (last_rect, -224), (jpeg, JPEG_QUALITY_6), (h264, H264)];
        list.extend(optional.iter().filter(|of| of.0).map(|of| of.1));
        let abilities = Abilities::of(&list);
        let mut scene = Scene::new();
        let mut encoder = Encoder::new(SIZE.0, SIZE.1);
        encoder.set_format(parsed(format));
        encoder.set_limits(Limits { bytes, thrift });
        let mut decoder = Decoder::new(SIZE.0, SIZE.1);
        decoder.format = format;
        for deed in &deeds {
            let pictures = if let Deed::Video(_, _, pictures) = deed { *pictures } else { 1 };
            for picture in 0..pictures {
                scene.now += Duration::from_millis(33);
                match deed {
                    Deed::Video(rect, seed, _) => scene.act(&Deed::Video(*rect, *seed, picture)),
                    deed => scene.act(deed),
                }
                if matches!(deed, Deed::Look | Deed::Move(..) | Deed::Video(..)) {
                    look(&scene, &mut encoder, &mut decoder, &abilities);
                }
            }
            if matches!(deed, Deed::Rest(_)) {
                exchange(&abilities, &mut decoder, |update| {
                    encoder.refresh(&scene.screen, &abilities, scene.now, update).expect("the viewer has the size");
                });
            }
        }
        look(&scene, &mut encoder, &mut decoder, &abilities);
        while encoder.misses(Rect::of_size(SIZE.0, SIZE.1)) {
            look(&scene, &mut encoder, &mut decoder, &abilities);
        }
        refresh(&scene, &mut encoder, &mut decoder, &abilities);
        prop_assert!(decoder.pixels == shown(&scene, format));
        prop_assert!(look(&scene, &mut encoder, &mut decoder, &abilities).is_none(), "and is sent no more");
    }
}

#[test]
fn a_scrolled_text_is_copied_and_costs_few_bytes() {
    let mut scene = Scene::new();
    let abilities = Abilities::of(&[1, 7, -224]);
    let (mut encoder, mut decoder) = (Encoder::new(SIZE.0, SIZE.1), Decoder::new(SIZE.0, SIZE.1));
    let window = Rect { x: 20, y: 10, width: 300, height: 240 };
    scene.act(&Deed::Text(window, 77));
    let (_, whole) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    scene.act(&Deed::Move(window, 0, -20));
    let (decoded, scrolled) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    assert!(decoded.rects.iter().any(|(_, encoding)| *encoding == 1), "{decoded:?}");
    assert!(scrolled * 4 < whole, "{scrolled} bytes after {whole}");
    assert!(decoder.pixels == shown(&scene, BGRX));
}

#[test]
fn a_photograph_is_near_at_first_and_exact_when_it_has_been_still() {
    let mut scene = Scene::new();
    let abilities = Abilities::of(&[7, JPEG_QUALITY_6]);
    let (mut encoder, mut decoder) = (Encoder::new(SIZE.0, SIZE.1), Decoder::new(SIZE.0, SIZE.1));
    scene.act(&Deed::Photo(Rect::of_size(256, 192), 0));
    let before = scene.now;
    let (decoded, _) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    assert!(decoded.jpegs > 0, "{decoded:?}");
    let exact = shown(&scene, BGRX);
    let far = |a: &u32, b: &u32| {
        a.to_le_bytes().iter().zip(b.to_le_bytes()).map(|(a, b)| u64::from(a.abs_diff(b))).sum::<u64>()
    };
    let error = decoder.pixels.iter().zip(&exact).map(|(a, b)| far(a, b)).sum::<u64>();
    assert!(error > 0 && error / (256 * 192 * 3) < 12, "{}", error as f64 / f64::from(256 * 192 * 3));
    let early = exchange(&abilities, &mut decoder, |update| {
        encoder.refresh(&scene.screen, &abilities, before + STILL / 2, update).unwrap();
    });
    assert_eq!(early, None, "what has just been sent is not sent again at once");
    refresh(&scene, &mut encoder, &mut decoder, &abilities);
    assert!(decoder.pixels == exact);
}

#[test]
fn a_changed_pixel_costs_a_few_bytes() {
    let mut scene = Scene::new();
    let abilities = Abilities::of(&[7, JPEG_QUALITY_6]);
    let (mut encoder, mut decoder) = (Encoder::new(SIZE.0, SIZE.1), Decoder::new(SIZE.0, SIZE.1));
    look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    scene.paint(Rect { x: 100, y: 100, width: 1, height: 1 }, |_, _| 0x123456);
    scene.flush(Rect::of_size(SIZE.0, SIZE.1));
    let (decoded, bytes) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    assert_eq!(decoded.rects, [(Rect { x: 100, y: 100, width: 1, height: 1 }, 7)]);
    assert_eq!(bytes, 4 + 12 + 4);
}

#[cfg(feature = "h264")]
#[test]
fn a_video_becomes_h264_that_is_near_and_exact_when_it_stops() {
    let abilities = Abilities::of(&[1, H264, 7, -224, JPEG_QUALITY_6]);
    let mut scene = Scene::new();
    let (mut encoder, mut decoder) = (Encoder::new(SIZE.0, SIZE.1), Decoder::new(SIZE.0, SIZE.1));
    let video = Rect { x: 30, y: 20, width: 260, height: 190 };
    let mut films = Vec::new();
    for picture in 0..60 {
        scene.now += Duration::from_millis(33);
        scene.act(&Deed::Video(video, 7, picture));
        let (decoded, bytes) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
        if decoded.frames > 0 {
            assert_eq!(decoded.rects, [(video, H264)], "and nothing else");
            films.push(bytes);
        }
    }
    assert!((30..45).contains(&films.len()), "{films:?}");
    let exact = shown(&scene, BGRX);
    let far = |a: &u32, b: &u32| u64::from((a >> 8 & 255).abs_diff(b >> 8 & 255));
    let error = decoder.pixels.iter().zip(&exact).map(|(a, b)| far(a, b)).sum::<u64>() as f64 / video.area() as f64;
    assert!(error > 0.0 && error < 12.0, "{error}");
    assert!(encoder.refresh_at(&scene.screen).is_some_and(|at| at > scene.now + STILL), "not while it may move on");
    refresh(&scene, &mut encoder, &mut decoder, &abilities);
    assert!(decoder.pixels == exact);
    scene.now += Duration::from_millis(900);
    scene.act(&Deed::Video(video, 7, 61));
    let (decoded, _) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    assert_eq!((decoded.rects.len(), decoded.frames), (1, 1), "it goes on where it stopped");
}

#[test]
fn a_dragged_window_is_copied() {
    let mut scene = Scene::new();
    let abilities = Abilities::of(&[1, 7, -224]);
    let (mut encoder, mut decoder) = (Encoder::new(SIZE.0, SIZE.1), Decoder::new(SIZE.0, SIZE.1));
    scene.act(&Deed::Text(Rect { x: 40, y: 30, width: 200, height: 150 }, 77));
    let (_, whole) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    scene.act(&Deed::Move(Rect { x: 20, y: 10, width: 300, height: 240 }, 33, 21));
    let (decoded, moved) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    assert!(decoded.rects.iter().any(|(_, encoding)| *encoding == 1), "{decoded:?}");
    assert!(moved * 2 < whole, "{moved} bytes after {whole}");
    assert!(decoder.pixels == shown(&scene, BGRX));
}

#[test]
fn on_a_slow_link_what_is_small_and_new_goes_before_what_is_large() {
    let mut scene = Scene::new();
    let abilities = Abilities::of(&[7, -224, JPEG_QUALITY_6]);
    let (mut encoder, mut decoder) = (Encoder::new(SIZE.0, SIZE.1), Decoder::new(SIZE.0, SIZE.1));
    look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    encoder.set_limits(Limits { bytes: 2000, thrift: Thrift::Much });
    scene.act(&Deed::Photo(Rect::of_size(SIZE.0, SIZE.1), 9));
    let (_, first) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    assert!(first < 8000, "{first}");
    assert!(encoder.misses(Rect::of_size(SIZE.0, SIZE.1)), "the rest waits");
    let key = Rect { x: 320, y: 250, width: 9, height: 6 };
    scene.act(&Deed::Fill(key, 0x123456));
    let (decoded, _) = look(&scene, &mut encoder, &mut decoder, &abilities).unwrap();
    let (first, _) = decoded.rects[0];
    assert!(first.intersection(&key) == key, "{decoded:?}");
}
