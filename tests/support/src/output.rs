use serde_json::Value;

/// The exit code and the output of a finished process.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Everything written to stdout.
    pub stdout: String,
    /// Everything written to stderr, which includes the log.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts that stderr contains a text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "{text}: {self:#?}");
        self
    }

    /// Asserts that neither stdout nor stderr contains any of these tokens.
    #[track_caller]
    pub fn hides(&self, tokens: &[&str]) -> &Self {
        for token in tokens {
            assert!(!self.stdout.contains(token) && !self.stderr.contains(token), "{token}: {self:#?}");
        }
        self
    }

    /// Stdout and stderr.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    /// The rows of a JSON document on stdout.
    #[track_caller]
    pub fn rows(&self, name: &str) -> Vec<Value> {
        let document: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(document["schema"], 1);
        document[name].as_array().unwrap().clone()
    }

    /// The `runners` of a JSON document on stdout.
    #[track_caller]
    pub fn runners(&self) -> Vec<Value> {
        self.rows("runners")
    }

    /// The only runner of a JSON document on stdout.
    #[track_caller]
    pub fn runner(&self) -> Value {
        let [runner] = <[Value; 1]>::try_from(self.runners()).unwrap_or_else(|_| panic!("{self:?}"));
        runner
    }
}
