//! Which endpoint takes a request: the less loaded of two taken at random.

/// The place of the endpoint to use among `loads` (requests in flight at each); `None` when there is none.
///
/// Two different ones are drawn from `chance`, and the one with fewer requests in flight wins. Against the least loaded
/// of all it costs no scan under a lock, and does not send a burst to one endpoint whose count is a moment old.
pub fn pick(loads: &[usize], chance: u64) -> Option<usize> {
    let count = loads.len();
    if count < 2 {
        return (count == 1).then_some(0);
    }
    let first = (chance >> 32) as usize % count;
    let other = (first + 1 + (chance & 0xffff_ffff) as usize % (count - 1)) % count;
    Some(if loads[other] < loads[first] {
        other
    } else {
        first
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(first: u64, other: u64) -> u64 {
        first << 32 | other
    }

    #[test]
    fn the_less_loaded_of_two() {
        for (name, loads, chance, want) in [
            ("none", &[][..], 0, None),
            ("one", &[9][..], draw(7, 7), Some(0)),
            ("the first is idle", &[0, 5][..], draw(0, 0), Some(0)),
            ("the other is idle", &[5, 0][..], draw(0, 0), Some(1)),
            (
                "a tie goes to the first drawn",
                &[3, 3, 3][..],
                draw(2, 0),
                Some(2),
            ),
            (
                "the third is not looked at",
                &[5, 4, 0][..],
                draw(0, 0),
                Some(1),
            ),
            ("around the end", &[1, 9, 9][..], draw(2, 0), Some(0)),
        ] {
            assert_eq!(pick(loads, chance), want, "{name}");
        }
    }

    #[test]
    fn the_two_are_never_the_same_and_all_are_drawn() {
        let mut drawn = [0; 5];
        for first in 0..50 {
            for other in 0..50 {
                // All but the first drawn are idle: whoever wins is the second.
                let mut loads = [0; 5];
                loads[first as usize % 5] = 9;
                let at = pick(&loads, draw(first, other)).expect("there are five");
                assert_ne!(at, first as usize % 5);
                drawn[at] += 1;
            }
        }
        assert!(
            drawn.iter().all(|count| (400..=600).contains(count)),
            "{drawn:?}"
        );
    }
}
