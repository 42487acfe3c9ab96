//! Bodies and what comes of them, by name.

use edgeweir_minify::{Framing, Invalid, Lexer};

fn stream(framing: Framing, depth: usize, text: &[u8]) -> (Vec<u8>, Option<Invalid>) {
    let mut lexer = Lexer::new(framing, depth);
    let mut out = Vec::new();
    let mut invalid = lexer.push(text, &mut out);
    invalid = invalid.or(lexer.finish(&mut out));
    (out, invalid)
}

fn check(framing: Framing, cases: &[(&str, &str, &str, Option<Invalid>)]) {
    for (name, text, want, reason) in cases {
        let (out, invalid) = stream(framing, 512, text.as_bytes());
        assert_eq!(
            (String::from_utf8_lossy(&out).as_ref(), invalid),
            (*want, *reason),
            "{name}"
        );
    }
}

#[test]
fn one_text() {
    use Invalid::*;
    check(
        Framing::Single,
        &[
            (
                "the four of RFC 8259 §2",
                " \t\r\n[ \t\r\n1 \t\r\n, \t\r\n2 \t\r\n] \t\r\n",
                "[1,2]",
                None,
            ),
            (
                "an object",
                "{ \"a\" : { } , \"b\" : [ ] }",
                "{\"a\":{},\"b\":[]}",
                None,
            ),
            (
                "strings are kept",
                r#"[ "  a\t \" , : \\" , "b" ]"#,
                r#"["  a\t \" , : \\","b"]"#,
                None,
            ),
            (
                "unknown escapes are kept",
                r#"[ "\x \u12 \ud800" ]"#,
                r#"["\x \u12 \ud800"]"#,
                None,
            ),
            (
                "big numbers are kept",
                "[ 1e400 , 12345678901234567890.10 , -0.0E-0 ]",
                "[1e400,12345678901234567890.10,-0.0E-0]",
                None,
            ),
            (
                "duplicates and order are kept",
                r#"{ "b":1, "a":2, "b":3 }"#,
                r#"{"b":1,"a":2,"b":3}"#,
                None,
            ),
            (
                "literals",
                " [ true , false , null ] ",
                "[true,false,null]",
                None,
            ),
            ("a number alone", " 12 ", "12", None),
            (
                "form feed is no whitespace",
                "[1,\u{c}2]",
                "[1,\u{c}2]",
                Some(UnexpectedByte),
            ),
            (
                "no-break space is none",
                "[1,\u{a0}2 ]",
                "[1,\u{a0}2 ]",
                Some(UnexpectedByte),
            ),
            (
                "the rest as it came",
                "[ 1 , x , 2 ]",
                "[1,x , 2 ]",
                Some(BadLiteral),
            ),
            (
                "tokens don't join",
                "[ 1  2 ]",
                "[1 2 ]",
                Some(UnexpectedByte),
            ),
            ("texts don't join", "1 2", "1 2", Some(Trailing)),
            (
                "lines that say they are one text",
                "{\"a\": 1}\r\n{\"a\": 2}\r\n",
                "{\"a\":1}\n{\"a\": 2}\r\n",
                Some(Trailing),
            ),
            (
                "a word after whitespace",
                "tru e",
                "tru e",
                Some(BadLiteral),
            ),
            ("capitals", "True", "True", Some(BadLiteral)),
            ("NaN", "[ NaN ]", "[NaN ]", Some(BadLiteral)),
            ("leading zero", "[ 01 ]", "[01 ]", Some(BadNumber)),
            ("point without digits", "[ 1. ]", "[1. ]", Some(BadNumber)),
            ("plus", "[ +1 ]", "[+1 ]", Some(BadNumber)),
            ("hexadecimal", "[ 0x1 ]", "[0x1 ]", Some(BadNumber)),
            (
                "tab in a string",
                "[ \"a\tb\" ]",
                "[\"a\tb\" ]",
                Some(ControlCharacter),
            ),
            (
                "line feed after a backslash",
                "[ \"a\\\nb\" ]",
                "[\"a\\\nb\" ]",
                Some(ControlCharacter),
            ),
            (
                "comma before the end",
                "[ 1 , ]",
                "[1,]",
                Some(UnexpectedByte),
            ),
            (
                "name without quotes",
                "{ a : 1 }",
                "{a : 1 }",
                Some(UnexpectedByte),
            ),
            ("closed by the other", "[ 1 }", "[1 }", Some(UnexpectedByte)),
            ("comments", "[ 1 ] // two", "[1] // two", Some(Trailing)),
            ("cut in a string", "[ \"ab", "[\"ab", Some(Truncated)),
            ("cut in a literal", "[ tru", "[tru", Some(Truncated)),
            ("cut after a point", "1.", "1.", Some(Truncated)),
            ("nothing", "", "", Some(Truncated)),
            ("only whitespace", " ", " ", Some(Truncated)),
            (
                "byte order mark",
                "\u{feff}[ 1 ]",
                "\u{feff}[ 1 ]",
                Some(Encoding),
            ),
            (
                "byte order mark after whitespace",
                " \u{feff}[ 1 ]",
                " \u{feff}[ 1 ]",
                Some(Encoding),
            ),
        ],
    );
}

#[test]
fn other_encodings_stay_as_they_came() {
    for text in [
        "[ 1 ]",
        " [ 1 ]",
        "\n[ 1 ]",
        "\"a b\" ",
        "1 ",
        "{ \"a\": 1 }",
    ] {
        let utf16: Vec<u16> = text.encode_utf16().collect();
        let utf32: Vec<u32> = text.chars().map(u32::from).collect();
        let mut bodies: Vec<Vec<u8>> = vec![
            utf16.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            utf16.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
            utf32.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
            utf32.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
        ];
        bodies.push([&[0xff, 0xfe], &bodies[0][..]].concat());
        bodies.push([&[0xfe, 0xff], &bodies[1][..]].concat());
        for body in bodies {
            for framing in [Framing::Single, Framing::Lines, Framing::Sequence] {
                let (out, invalid) = stream(framing, 512, &body);
                assert_eq!(out, body, "{text:?} {framing:?}");
                assert!(invalid.is_some(), "{text:?} {framing:?}");
            }
        }
    }
}

#[test]
fn lines() {
    use Invalid::*;
    check(
        Framing::Lines,
        &[
            (
                "a text a line",
                "{ \"a\": 1 }\n[ 2 ]\n",
                "{\"a\":1}\n[2]\n",
                None,
            ),
            ("carriage returns go", "1 \r\n 2 \r\n", "1\n2\n", None),
            (
                "empty lines keep their place",
                "1\n\n \n2\n",
                "1\n\n\n2\n",
                None,
            ),
            ("the last may have no end", "1\n2", "1\n2", None),
            ("nothing", "", "", None),
            ("numbers end at the line", "1\n-2.5\n", "1\n-2.5\n", None),
            ("two texts a line", "1 2\n 3\n", "1 2\n 3\n", Some(Trailing)),
            (
                "a text over two lines",
                "[ 1,\n 2 ]\n",
                "[1,\n 2 ]\n",
                Some(LineFeed),
            ),
            ("cut", "{ \"a\"", "{\"a\"", Some(Truncated)),
            (
                "a separator has no place",
                "\u{1e}1\n",
                "\u{1e}1\n",
                Some(UnexpectedByte),
            ),
        ],
    );
}

#[test]
fn sequences() {
    use Invalid::*;
    check(
        Framing::Sequence,
        &[
            (
                "RFC 7464 §2.2",
                "\u{1e}{ \"a\": 1 }\n\u{1e}[ 2 ]\n",
                "\u{1e}{\"a\":1}\n\u{1e}[2]\n",
                None,
            ),
            (
                "line feeds inside a text go",
                "\u{1e}[\n 1,\n 2\n]\n",
                "\u{1e}[1,2]\n",
                None,
            ),
            (
                "one line feed is enough",
                "\u{1e}1\n\n\n\u{1e}2\r\n",
                "\u{1e}1\n\u{1e}2\n",
                None,
            ),
            (
                "another white space ends a text too",
                "\u{1e}1 \t\u{1e}2 ",
                "\u{1e}1 \u{1e}2 ",
                None,
            ),
            (
                "no white space is kept so",
                "\u{1e}1\u{1e}2",
                "\u{1e}1\u{1e}2",
                None,
            ),
            (
                "separators in a row",
                "\u{1e}\u{1e} \u{1e}1\n",
                "\u{1e}\u{1e}\u{1e}1\n",
                None,
            ),
            ("nothing", "", "", None),
            ("no separator", "[ 1 ]\n", "[ 1 ]\n", Some(UnexpectedByte)),
            ("two texts", "\u{1e}1 2\n", "\u{1e}1 2\n", Some(Trailing)),
            (
                "a text cut by the next",
                "\u{1e}[ 1,\u{1e}[ 2 ]\n",
                "\u{1e}[1,\u{1e}[ 2 ]\n",
                Some(UnexpectedByte),
            ),
        ],
    );
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b' '], vec![b']'; depth]].concat();
    assert_eq!(
        stream(Framing::Single, 512, &nested(512)),
        ([vec![b'['; 512], vec![b']'; 512]].concat(), None)
    );
    assert_eq!(
        stream(Framing::Single, 512, &nested(513)),
        (nested(513), Some(Invalid::Depth))
    );
    assert_eq!(
        stream(Framing::Single, 1, b"[ 1 ]"),
        (b"[1]".to_vec(), None)
    );
    assert_eq!(
        stream(Framing::Single, 1, b"[ {} ]").1,
        Some(Invalid::Depth)
    );
    assert_eq!(stream(Framing::Single, 65_536, &nested(65_536)).1, None);
    let million = nested(1_000_000);
    assert_eq!(
        stream(Framing::Single, 65_536, &million),
        (million.clone(), Some(Invalid::Depth))
    );
    // Depth counts what is open, not what was.
    assert_eq!(
        stream(Framing::Single, 2, b"[[], [], {}, []]"),
        (b"[[],[],{},[]]".to_vec(), None)
    );
}

#[test]
fn bytes_in_strings_that_are_no_utf8_are_kept() {
    let body = b"[ \"\xff\xc0\x80 \xed\xa0\x80\" , \"\x7f\" ]";
    assert_eq!(
        stream(Framing::Single, 9, body),
        (b"[\"\xff\xc0\x80 \xed\xa0\x80\",\"\x7f\"]".to_vec(), None)
    );
}

#[test]
fn strings_of_every_length_end_where_they_end() {
    for length in 0..40 {
        for (stop, reason) in [
            ("\"", None),
            ("\\\"\"", None),
            ("\u{1f}\"", Some(Invalid::ControlCharacter)),
        ] {
            for fill in ["a", "é", "\u{7f}", "!", "#", "["] {
                let text = format!("\"{}{stop}", fill.repeat(length));
                assert_eq!(
                    stream(Framing::Single, 9, text.as_bytes()),
                    (text.clone().into_bytes(), reason),
                    "{text:?}"
                );
            }
        }
    }
}
