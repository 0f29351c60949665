//! What a browser's page and the machine's proxy tell each other beside the screen: what goes on to the guest ([`crate::seat`]), steps of
//! the pointer, and what is possible.
//!
//! In frames of [`crate::seat`], in binary messages of a websocket of at most 1 MiB, which may cut them anywhere.

use serde::{Deserialize, Serialize};

use crate::seat::{Head, Kind, Layout, MOST_TYPED};
use crate::viewer::May;

/// Where a person is who looks at the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Whereabouts {
    /// The pixel of the screen that their pointer is on, if it is on the screen.
    #[serde(default)]
    pub at: Option<[u16; 2]>,
    /// They type.
    #[serde(default)]
    pub types: bool,
}

/// Page to proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum FromPage {
    /// See [`crate::seat::ToSeat::Clip`].
    Clip {
        /// What it is.
        kind: Kind,
        /// Its bytes, at most [`Kind::limit`].
        length: u32,
    },
    /// See [`crate::seat::ToSeat::Type`].
    Type {
        /// Bytes of UTF-8, at most [`MOST_TYPED`].
        length: u32,
    },
    /// See [`crate::seat::ToSeat::Layout`].
    Layout(Layout),
    /// The pointer moves by so much, while the page has locked its own.
    Move {
        /// Pixels to the right.
        x: i16,
        /// Pixels down.
        y: i16,
        /// As in [`crate::display::Request::Pointer`].
        buttons: u8,
    },
    /// The wheel or a touchpad scrolls.
    Scroll {
        /// To the right, in 120th of a wheel's click.
        x: i16,
        /// Up, likewise.
        y: i16,
    },
    /// Where this page's person is, for the others.
    Here(Whereabouts),
}

/// Proxy to page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum ToPage {
    /// What is possible now; the first frame, and whenever it changes.
    Able {
        /// The guest's agent is there.
        agent: bool,
        /// The page may set the guest's clipboard.
        to_guest: bool,
        /// The page is told of the guest's clipboard.
        from_guest: bool,
        /// Text can be typed.
        text: bool,
        /// What its person may.
        #[serde(default)]
        may: May,
    },
    /// The guest's clipboard holds what follows.
    Clip {
        /// What it is.
        kind: Kind,
        /// Its bytes, at most [`Kind::limit`].
        length: u32,
        /// It was copied before the page was there.
        old: bool,
    },
    /// The guest's clipboard holds what a page has sent.
    Taken,
    /// What pages have sent to be typed has been: keys that come now come after it.
    Typed {
        /// How many texts, since it was last said.
        texts: u32,
    },
    /// The guest's keyboard has this layout.
    Layout(Layout),
    /// Somebody else looks at the screen, too.
    Person {
        /// Which of those who are there.
        id: u16,
        /// See [`crate::viewer::Viewer::name`].
        name: String,
    },
    /// Where one of the others is.
    There {
        /// Which, of those whom [`ToPage::Person`] told of.
        id: u16,
        /// Where.
        is: Whereabouts,
    },
    /// One of the others is no longer there.
    Gone {
        /// Which.
        id: u16,
    },
}

impl Head for FromPage {
    fn body(&self) -> (u32, u32) {
        match self {
            Self::Clip { kind, length } => (*length, kind.limit()),
            Self::Type { length } => (*length, MOST_TYPED),
            Self::Layout(_) | Self::Move { .. } | Self::Scroll { .. } | Self::Here(_) => (0, 0),
        }
    }
}

impl Head for ToPage {
    fn body(&self) -> (u32, u32) {
        match self {
            Self::Clip { kind, length, .. } => (*length, kind.limit()),
            Self::Able { .. }
            | Self::Taken
            | Self::Typed { .. }
            | Self::Layout(_)
            | Self::Person { .. }
            | Self::There { .. }
            | Self::Gone { .. } => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seat::{frame, parse};
    use crate::viewer::{LONGEST_NAME, Viewer};

    #[test]
    fn every_message_keeps_its_name_on_the_wire() {
        let (head, _): (FromPage, _) = parse(b"{\"type\":\"move\",\"x\":-3,\"y\":4,\"buttons\":1}\n").unwrap().unwrap();
        assert_eq!(head, FromPage::Move { x: -3, y: 4, buttons: 1 });
        let (head, _): (FromPage, _) = parse(b"{\"type\":\"here\",\"at\":[7,65535]}\n").unwrap().unwrap();
        assert_eq!(head, FromPage::Here(Whereabouts { at: Some([7, 65535]), types: false }));
        let there = ToPage::There { id: 3, is: Whereabouts { at: None, types: true } };
        let line = "{\"type\":\"there\",\"id\":3,\"is\":{\"at\":null,\"types\":true}}\n";
        assert_eq!(frame(&there, b""), line.as_bytes());
        let able = ToPage::Able { agent: true, to_guest: true, from_guest: false, text: true, may: May::NOTHING };
        let line = "{\"type\":\"able\",\"agent\":true,\"to_guest\":true,\"from_guest\":false,\"text\":true,\
                    \"may\":{\"input\":false,\"clipboard\":false,\"sound\":false}}\n";
        assert_eq!(frame(&able, b""), line.as_bytes());
    }

    #[test]
    fn the_longest_name_fits_into_a_line() {
        for character in ['"', '\\', '\u{10ffff}'] {
            let name = character.to_string().repeat(LONGEST_NAME);
            let head = ToPage::Person { id: u16::MAX, name: Viewer::new(&name, May::NOTHING).name().to_owned() };
            let bytes = frame(&head, b"");
            assert_eq!(parse::<ToPage>(&bytes).unwrap().map(|(read, _)| read), Some(head));
        }
    }
}
