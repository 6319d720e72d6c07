#pragma once
// JSON schemas (draft 2020-12) as grammars.
#include <string_view>

#include "base/error.h"
#include "text/grammar.h"

namespace penstock::text {

inline constexpr size_t kMaxSchemaBytes = 64 << 10;

// Every text of the grammar is JSON that the schema accepts; not every JSON that it accepts is a text of the grammar: members come in the order of
// `properties`, others only where additionalProperties asks for them, spelling is that of json_grammar.h. docs/openai.md lists what is read.
// A keyword that is not supported and would change what is valid is kInvalidArgument naming it and its place, "#/properties/a: ...".
[[nodiscard]] Result<Grammar> schema_grammar(std::string_view schema);

// Any object, as {"type": "json_object"} asks for.
[[nodiscard]] Grammar any_object_grammar();

}  // namespace penstock::text
