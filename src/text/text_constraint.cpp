#include "text/text_constraint.h"

#include <memory>

#include "text/grammar.h"
#include "text/grammar_states.h"
#include "text/json_input.h"
#include "text/json_schema.h"
#include "text/regex_grammar.h"

namespace penstock::text {
namespace {

Grammar regex_as_grammar(const std::string& pattern) {
  GrammarBuilder grammar;
  const GrammarBuilder::Rule top = grammar.rule();
  grammar.skip(add_regex(grammar, grammar.start(top), pattern, RegexMatch::kWhole, Spelling::kPlain), grammar.end(top));
  return grammar.build(top);
}

Grammar choices_as_grammar(const std::string& source) {
  if (source.size() > kMaxSchemaBytes) throw error(Code::kInvalidArgument, "expected at most {} bytes, found {}", kMaxSchemaBytes, source.size());
  const nlohmann::json choices = parse_json(source, "the choices", Code::kInvalidArgument).value();
  if (!choices.is_array() || choices.empty()) throw error(Code::kInvalidArgument, "expected a list of at least one text, found {}", shown(choices));
  GrammarBuilder grammar;
  const GrammarBuilder::Rule top = grammar.rule();
  for (const nlohmann::json& choice : choices) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) throw error(Code::kInvalidArgument, "expected texts of at least one byte, found {}", shown(choice));
    grammar.skip(grammar.literal(grammar.start(top), choice.get_ref<const std::string&>()), grammar.end(top));
  }
  return grammar.build(top);
}

Grammar grammar_of(const TextConstraint& constraint) {
  switch (constraint.kind) {
    case TextConstraint::Kind::kJsonObject: return any_object_grammar();
    case TextConstraint::Kind::kJsonSchema: return schema_grammar(constraint.source).value();
    case TextConstraint::Kind::kRegex: return regex_as_grammar(constraint.source);
    case TextConstraint::Kind::kChoice: return choices_as_grammar(constraint.source);
    case TextConstraint::Kind::kNone: break;
  }
  throw error(Code::kInvalidArgument, "expected a constraint, found none");
}

}  // namespace

Result<Grammar> constraint_grammar(const TextConstraint& constraint) {
  try {
    Grammar grammar = grammar_of(constraint);
    const GrammarStates states(std::make_shared<const Grammar>(grammar));
    if (!states.goes_on(states.start())) return error(Code::kInvalidArgument, "only the empty text fits");
    return grammar;
  } catch (const Error& e) {
    return Error(Code::kInvalidArgument, e.message());
  }
}

}  // namespace penstock::text
