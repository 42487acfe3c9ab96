//! One chain of filters for every way through a listener: each way has some of it switched on.

/// A chain in which every list is found in its order, made longer by as little as each list asks for. Where two lists
/// contradict each other a filter is in it twice.
pub(crate) fn woven<'l>(lists: impl IntoIterator<Item = &'l [String]>) -> Vec<String> {
    lists
        .into_iter()
        .fold(Vec::new(), |chain, list| weave(&chain, list))
}

/// Which places of a chain a list takes that was woven into it.
pub(crate) fn taken(chain: &[String], list: &[String]) -> Vec<bool> {
    let mut rest = list.iter().peekable();
    let takes = |place: &String| rest.next_if(|name| *name == place).is_some();
    chain.iter().map(takes).collect()
}

/// The shortest common supersequence of both, by their longest common subsequence.
fn weave(chain: &[String], list: &[String]) -> Vec<String> {
    // How much of what follows two places both have in common.
    let mut common = vec![vec![0_usize; list.len() + 1]; chain.len() + 1];
    for (at, place) in chain.iter().enumerate().rev() {
        for (of, name) in list.iter().enumerate().rev() {
            common[at][of] = match place == name {
                true => common[at + 1][of + 1] + 1,
                false => common[at + 1][of].max(common[at][of + 1]),
            };
        }
    }
    let mut all = Vec::with_capacity(chain.len() + list.len());
    let (mut at, mut of) = (0, 0);
    while let (Some(place), Some(name)) = (chain.get(at), list.get(of)) {
        let both = place == name;
        let of_list = both || common[at][of + 1] >= common[at + 1][of];
        all.push(if of_list { name } else { place }.clone());
        at += usize::from(both || !of_list);
        of += usize::from(of_list);
    }
    all.extend_from_slice(&chain[at..]);
    all.extend_from_slice(&list[of..]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_in_the_chain() {
        for (name, lists, want) in [
            ("one", &["a b"][..], "a b"),
            ("a part", &["a b c", "b"], "a b c"),
            ("nothing", &["a", ""], "a"),
            ("a further one between", &["a c", "a b c"], "a b c"),
            ("a further one outside", &["a b", "c a"], "c a b"),
            ("a variant", &["a b", "a b@x"], "a b@x b"),
            ("the other way round", &["a b", "b a"], "b a b"),
            ("twice", &["a", "a a"], "a a"),
            ("nothing in common", &["", "b", "a b"], "a b"),
        ] {
            let split = |text: &str| text.split_whitespace().map(str::to_owned).collect();
            let lists: Vec<Vec<String>> = lists.iter().map(|list| split(list)).collect();
            let chain = woven(lists.iter().map(Vec::as_slice));
            assert_eq!(chain.join(" "), want, "{name}");
            for list in &lists {
                let places = taken(&chain, list);
                let on: Vec<&String> = chain
                    .iter()
                    .zip(places)
                    .filter_map(|(filter, on)| on.then_some(filter))
                    .collect();
                assert_eq!(on, list.iter().collect::<Vec<_>>(), "{name}: {list:?}");
            }
        }
    }
}
