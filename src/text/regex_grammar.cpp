#include "text/regex_grammar.h"

#include <utility>

#include "text/regex_parser.h"

namespace penstock::text {
namespace {

using State = GrammarBuilder::State;
using Kind = RegexNode::Kind;

class RegexWriter {
 public:
  RegexWriter(GrammarBuilder& grammar, RegexMatch match, Spelling spelling) : grammar_(grammar), match_(match), spelling_(spelling) {}

  // An alternative of the whole pattern: anchors at its ends are no part of it, and where there is none, anything may be.
  void add_alternative(State from, RegexNode node, State to) {
    if (node.kind == Kind::kSequence && node.children.size() == 1) {
      RegexNode only = std::move(node.children[0]);
      return add_alternative(from, std::move(only), to);
    }
    if (node.kind == Kind::kChoice) {
      for (RegexNode& child : node.children) add_alternative(from, std::move(child), to);
      return;
    }
    if (node.kind != Kind::kSequence) {
      RegexNode sequence;
      sequence.children.push_back(std::move(node));
      node = std::move(sequence);
    }
    bool starts = match_ == RegexMatch::kWhole, ends = starts;
    auto& parts = node.children;
    while (!parts.empty() && parts.front().kind == Kind::kTextStart) {
      parts.erase(parts.begin());
      starts = true;
    }
    while (!parts.empty() && parts.back().kind == Kind::kTextEnd) {
      parts.pop_back();
      ends = true;
    }
    if (!starts) from = add_anything(from);
    from = add(from, node);
    if (!ends) from = add_anything(from);
    grammar_.skip(from, to);
  }

 private:
  State add_anything(State from) {
    const State loop = grammar_.state();
    grammar_.skip(from, loop);
    add_character(grammar_, loop, CodePointSet::all(), loop, spelling_);
    return loop;
  }

  State add(State from, const RegexNode& node) {
    grammar_.count_part();
    switch (node.kind) {
      case Kind::kCharacter: {
        const State to = grammar_.state();
        add_character(grammar_, from, node.set, to, spelling_);
        return to;
      }
      case Kind::kSequence:
        for (const RegexNode& child : node.children) from = add(from, child);
        return from;
      case Kind::kChoice: {
        const State to = grammar_.state();
        for (const RegexNode& child : node.children) grammar_.skip(add(from, child), to);
        return to;
      }
      case Kind::kRepeat: return add_repeat(from, node);
      case Kind::kTextStart: throw error(Code::kInvalidArgument, "an anchor ^ elsewhere than at the start is not supported");
      case Kind::kTextEnd: throw error(Code::kInvalidArgument, "an anchor $ elsewhere than at the end is not supported");
    }
    return from;
  }

  State add_repeat(State from, const RegexNode& node) {
    const RegexNode& child = node.children[0];
    for (int i = 0; i < node.min; ++i) from = add(from, child);
    if (node.max < 0) {
      const State loop = grammar_.state();
      grammar_.skip(from, loop);
      grammar_.skip(add(loop, child), loop);
      return loop;
    }
    if (node.max == node.min) return from;
    const State to = grammar_.state();
    for (int i = node.min; i < node.max; ++i) {
      grammar_.skip(from, to);
      from = add(from, child);
    }
    grammar_.skip(from, to);
    return to;
  }

  GrammarBuilder& grammar_;
  const RegexMatch match_;
  const Spelling spelling_;
};

}  // namespace

State add_regex(GrammarBuilder& grammar, State from, std::string_view pattern, RegexMatch match, Spelling spelling) {
  if (pattern.size() > kMaxPatternBytes) throw error(Code::kInvalidArgument, "a pattern of {} bytes; expected at most {}", pattern.size(), kMaxPatternBytes);
  const State to = grammar.state();
  RegexWriter(grammar, match, spelling).add_alternative(from, parse_regex(pattern), to);
  return to;
}

}  // namespace penstock::text
