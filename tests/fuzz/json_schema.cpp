#include <memory>

#include "fuzz.h"
#include "text/grammar_states.h"
#include "text/text_constraint.h"

// The first line is a schema, the rest a text that is looked up in its grammar.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    const auto [schema, input] = fuzz::first_line(fuzz::text_of(data, size));
    text::GrammarStates states(std::make_shared<const text::Grammar>(text::constraint_grammar({text::TextConstraint::Kind::kJsonSchema, std::string(schema)}).value()));
    auto place = states.start();
    for (const char byte : input) {
      if (place != text::GrammarStates::kNowhere) place = states.next(place, static_cast<uint8_t>(byte));
    }
  });
}
