//! What hosts cannot know for sure: an answer was lost, or what it told is not committed.

/// Something of which more than one value may be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maybe<T> {
    values: Vec<T>,
    /// What it may be again after a crash: an array lists what it has not yet committed.
    after_crash: Vec<T>,
}

impl<T: PartialEq> Maybe<T> {
    /// Known, for good.
    pub fn is(value: T) -> Self {
        Self { values: vec![value], after_crash: Vec::new() }
    }

    /// What it is, if that is known.
    pub fn known(&self) -> Option<&T> {
        if let [value] = &self.values[..] { Some(value) } else { None }
    }

    /// Whether it is known to be that.
    pub fn surely(&self, value: &T) -> bool {
        self.known() == Some(value)
    }

    /// Whether it can be that.
    pub fn may_be(&self, value: &T) -> bool {
        self.values.contains(value)
    }

    /// It may be that, too.
    pub fn also(&mut self, value: T) {
        if !self.may_be(&value) {
            self.values.push(value);
        }
    }

    /// It may be that, too, if it is anything.
    pub(super) fn also_if(&mut self, value: Option<T>) {
        if let Some(value) = value {
            self.also(value);
        }
    }

    /// What it was changed to last.
    pub fn latest(&self) -> &T {
        &self.values[self.values.len() - 1]
    }

    /// All that it may be.
    pub fn all(&self) -> &[T] {
        &self.values
    }

    /// A listing shows it to be that: for good, or until the array crashes at least.
    pub fn shown(&mut self, value: T, for_good: bool) {
        if for_good {
            self.after_crash.clear();
        } else if self.values.len() > 1 {
            self.after_crash.append(&mut self.values);
        }
        self.values = vec![value];
    }

    /// The array crashed.
    pub fn crashed(&mut self) {
        for value in std::mem::take(&mut self.after_crash) {
            self.also(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_held_open() {
        let mut stage = Maybe::is("related");
        assert!(stage.surely(&"related"));
        stage.also("active");
        stage.also("active");
        assert_eq!((stage.known(), stage.latest(), stage.all().len()), (None, &"active", 2));
        stage.shown("active", false);
        assert!(stage.surely(&"active"));
        stage.crashed();
        assert!(stage.may_be(&"related"), "it was not committed");
    }
}
