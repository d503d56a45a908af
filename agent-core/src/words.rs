//! JSON of enumerations that are one of a few words.

/// Serialises enumerations as their `as_str`, and describes all words in a JSON Schema.
macro_rules! json {
    ($($name:ident),+ $(,)?) => {
        $(crate::words::json!($name: Self::ALL.iter().map(|member| member.as_str()));)+
    };
    ($name:ident: $words:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words: std::collections::BTreeSet<_> = $words.collect();
                schemars::json_schema!({ "type": "string", "enum": words })
            }
        }
    };
}

pub(crate) use json;
