#include "text/pre_tokenizer.h"

#include <algorithm>
#include <memory>

#include "text/characters.h"

namespace penstock::text {
namespace {

// Calls `take(begin, end)` for matches from left to right and fills in what lies between them.
class Spans {
 public:
  explicit Spans(std::string_view text) : text_(text) {}
  void match(size_t begin, size_t end) {
    if (begin > done_) spans_.push_back({done_, begin, false});
    if (begin < end) spans_.push_back({begin, end, true});
    done_ = end;
  }
  std::vector<Span> finish() {
    if (done_ < text_.size()) spans_.push_back({done_, text_.size(), false});
    return std::move(spans_);
  }

 private:
  std::string_view text_;
  size_t done_ = 0;
  std::vector<Span> spans_;
};

// Cuts `text` at the spans, as `behavior` says.
void cut(std::string_view text, const std::vector<Span>& spans, SplitBehavior behavior, std::vector<std::string_view>& out) {
  const auto piece = [&](size_t begin, size_t end) { out.push_back(text.substr(begin, end - begin)); };
  for (size_t i = 0; i < spans.size(); ++i) {
    size_t begin = spans[i].begin, end = spans[i].end;
    switch (behavior) {
      case SplitBehavior::kRemoved:
        if (spans[i].matched) continue;
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kContiguous:
        while (i + 1 < spans.size() && spans[i + 1].matched == spans[i].matched) end = spans[++i].end;
        break;
      case SplitBehavior::kMergedWithPrevious:
        if (!spans[i].matched && i + 1 < spans.size() && spans[i + 1].matched) end = spans[++i].end;
        break;
      case SplitBehavior::kMergedWithNext:
        if (spans[i].matched && i + 1 < spans.size() && !spans[i + 1].matched) end = spans[++i].end;
        break;
    }
    piece(begin, end);
  }
}

std::string with_symbols(std::string_view text, const std::string& symbol) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char byte : text) {
    if (byte == ' ') out += symbol;
    else out += byte;
  }
  return out;
}

}  // namespace

Pattern pattern_of(UnicodeRegex regex) {
  return [regex = std::move(regex)](std::string_view text) {
    Spans spans(text);
    UnicodeRegex::Search search(regex);
    for (size_t at = 0; at < text.size();) {
      const auto match = search.next(text, at);
      if (!match) break;
      if (match->begin < match->end) {
        spans.match(match->begin, match->end);
        at = match->end;
      } else if ((at = match->end) < text.size()) {
        (void)next_character(text, at);  // an empty match cuts nothing
      }
    }
    return spans.finish();
  };
}

Pattern pattern_of(std::string literal) {
  PENSTOCK_CHECK(!literal.empty(), "nothing to split at");
  return [literal = std::move(literal)](std::string_view text) {
    Spans spans(text);
    for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size())) spans.match(at, at + literal.size());
    return spans.finish();
  };
}

Pattern pattern_of(std::function<bool(char32_t)> wanted) {
  return [wanted = std::move(wanted)](std::string_view text) {
    Spans spans(text);
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      if (wanted(next_character(text, at))) spans.match(begin, at);
    }
    return spans.finish();
  };
}

void PreTokenizer::add_split(Pattern pattern, SplitBehavior behavior, bool invert) {
  steps_.emplace_back([pattern = std::move(pattern), behavior, invert](bool /*first*/, Pieces& pieces) {
    std::vector<std::string_view> cuts;
    for (const std::string_view piece : pieces.views) {
      std::vector<Span> spans = pattern(piece);
      for (Span& span : spans) span.matched ^= invert;
      cut(piece, spans, behavior, cuts);
    }
    pieces.views = std::move(cuts);
  });
}

void PreTokenizer::add_prefix_space() {
  steps_.emplace_back([](bool /*first*/, Pieces& pieces) {
    for (std::string_view& piece : pieces.views) {
      if (piece.starts_with(' ')) continue;
      piece = pieces.owned.emplace_back(" " + std::string(piece));
    }
  });
}

void PreTokenizer::add_metaspace(std::string symbol, PrependScheme scheme, bool split) {
  steps_.emplace_back([symbol = std::move(symbol), scheme, split](bool first, Pieces& pieces) {
    std::vector<std::string_view> cuts;
    for (std::string_view piece : pieces.views) {
      const bool at_start = first && piece.data() == pieces.views.front().data();
      std::string& text = pieces.owned.emplace_back(with_symbols(piece, symbol));
      const bool wanted = scheme == PrependScheme::kAlways || (scheme == PrependScheme::kFirst && at_start);
      if (wanted && !text.starts_with(symbol)) text.insert(0, symbol);
      if (!split) {
        cuts.push_back(text);
        continue;
      }
      const std::string_view whole = text;
      for (size_t begin = 0; begin < whole.size();) {
        const size_t end = std::min(whole.find(symbol, begin + 1), whole.size());
        cuts.push_back(whole.substr(begin, end - begin));
        begin = end;
      }
    }
    pieces.views = std::move(cuts);
  });
}

void PreTokenizer::split(std::string_view text, bool first, Pieces& pieces) const {
  pieces.owned.clear();
  pieces.views.clear();
  if (text.empty()) return;
  pieces.views.push_back(text);
  for (const Step& step : steps_) step(first, pieces);
}

}  // namespace penstock::text
