#include "text/template_expressions.h"

#include <algorithm>
#include <charconv>

#include "base/utf8.h"

namespace penstock::text {
namespace {

using Kind = TemplateExpression::Kind;
constexpr int kMaxDepth = 200;

bool is_comparison(const TemplateToken& token) {
  static constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  return token.kind == TemplateToken::kOperator && std::find(std::begin(kOperators), std::end(kOperators), token.text) != std::end(kOperators);
}

}  // namespace

bool TemplateWords::accept_operator(std::string_view text) {
  if (!at_operator(text)) return false;
  take();
  return true;
}

bool TemplateWords::accept_name(std::string_view text) {
  if (!at_name(text)) return false;
  take();
  return true;
}

void TemplateWords::expect_operator(std::string_view text) {
  if (!accept_operator(text)) throw wrong(fmt::format("'{}'", text));
}

std::string TemplateWords::expect_name(std::string_view what) {
  if (peek().kind != TemplateToken::kName) throw wrong(what);
  return take().text;
}

void TemplateWords::expect(TemplateToken::Kind kind, std::string_view what) {
  if (peek().kind != kind) throw wrong(what);
  take();
}

bool TemplateWords::has_variable_since(size_t begin, std::string_view name) const {
  for (size_t i = begin; i < at_; ++i) {
    const bool of_value = i > 0 && tokens_[i - 1].kind == TemplateToken::kOperator && tokens_[i - 1].text == ".";
    if (tokens_[i].kind == TemplateToken::kName && tokens_[i].text == name && !of_value) return true;
  }
  return false;
}

Error TemplateWords::wrong(std::string_view what) const {
  const TemplateToken& token = peek();
  std::string found = fmt::format("'{}'", utf8_prefix(token.text, 40));
  if (token.kind == TemplateToken::kEnd) found = "the end of the template";
  if (token.kind == TemplateToken::kPrintEnd) found = "'}}'";
  if (token.kind == TemplateToken::kBlockEnd) found = "'%}'";
  return template_error(Code::kDataLoss, token.line, "expected {}, found {}", what, found);
}

void ExpressionParser::enter() {
  if (++nesting_ > kMaxDepth) throw template_error(Code::kUnimplemented, words_.line(), "an expression nested deeper than {} is not supported", kMaxDepth);
}

ExpressionPtr ExpressionParser::make(Kind kind, int line, std::string name) const {
  auto node = std::make_unique<TemplateExpression>();
  node->kind = kind;
  node->line = line;
  node->name = std::move(name);
  return node;
}

ExpressionPtr ExpressionParser::finished(ExpressionPtr node) {
  for (const ExpressionPtr& part : node->parts) {
    if (part) node->depth = std::max(node->depth, part->depth + 1);
  }
  for (const auto& [name, part] : node->named) node->depth = std::max(node->depth, part->depth + 1);
  if (node->depth > kMaxDepth) {
    throw template_error(Code::kUnimplemented, node->line, "an expression of more than {} parts within each other is not supported", kMaxDepth);
  }
  return node;
}

ExpressionPtr ExpressionParser::tuple(bool condition) {
  const int line = words_.line();
  ExpressionPtr first = condition ? expression() : alternatives();
  if (!words_.at_operator(",")) return first;
  ExpressionPtr node = make(Kind::kTuple, line);
  node->parts.push_back(std::move(first));
  while (words_.accept_operator(",")) {
    const TemplateToken& next = words_.peek();
    if (next.kind == TemplateToken::kBlockEnd || next.kind == TemplateToken::kPrintEnd || words_.at_operator(")")) break;
    node->parts.push_back(condition ? expression() : alternatives());
  }
  return finished(std::move(node));
}

ExpressionPtr ExpressionParser::expression() {
  enter();
  ExpressionPtr value = alternatives();
  while (words_.at_name("if")) {
    ExpressionPtr node = make(Kind::kCondition, words_.take().line);
    node->parts.push_back(std::move(value));
    node->parts.push_back(alternatives());
    node->parts.push_back(words_.accept_name("else") ? expression() : nullptr);
    value = finished(std::move(node));
  }
  --nesting_;
  return value;
}

ExpressionPtr ExpressionParser::alternatives() {
  ExpressionPtr left = conjunction();
  while (words_.at_name("or")) {
    ExpressionPtr node = make(Kind::kOr, words_.take().line);
    node->parts.push_back(std::move(left));
    node->parts.push_back(conjunction());
    left = finished(std::move(node));
  }
  return left;
}

ExpressionPtr ExpressionParser::conjunction() {
  ExpressionPtr left = negation();
  while (words_.at_name("and")) {
    ExpressionPtr node = make(Kind::kAnd, words_.take().line);
    node->parts.push_back(std::move(left));
    node->parts.push_back(negation());
    left = finished(std::move(node));
  }
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  if (!words_.at_name("not")) return comparison();
  enter();
  ExpressionPtr node = make(Kind::kNot, words_.take().line);
  node->parts.push_back(negation());
  --nesting_;
  return finished(std::move(node));
}

ExpressionPtr ExpressionParser::comparison() {
  ExpressionPtr node = make(Kind::kCompare, words_.line());
  node->parts.push_back(sum());
  for (;;) {
    if (is_comparison(words_.peek())) {
      node->operators.push_back(words_.take().text);
    } else if (words_.accept_name("in")) {
      node->operators.emplace_back("in");
    } else if (words_.at_name("not") && words_.peek(1).kind == TemplateToken::kName && words_.peek(1).text == "in") {
      words_.take();
      words_.take();
      node->operators.emplace_back("not in");
    } else {
      break;
    }
    node->parts.push_back(sum());
  }
  return node->operators.empty() ? std::move(node->parts.front()) : finished(std::move(node));
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = join();
  while (words_.at_operator("+") || words_.at_operator("-")) {
    const TemplateToken word = words_.take();
    ExpressionPtr node = make(Kind::kArithmetic, word.line, word.text);
    node->parts.push_back(std::move(left));
    node->parts.push_back(join());
    left = finished(std::move(node));
  }
  return left;
}

ExpressionPtr ExpressionParser::join() {
  ExpressionPtr left = product();
  while (words_.at_operator("~")) {
    ExpressionPtr node = make(Kind::kJoin, words_.take().line);
    node->parts.push_back(std::move(left));
    node->parts.push_back(product());
    left = finished(std::move(node));
  }
  return left;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (words_.at_operator("*") || words_.at_operator("/") || words_.at_operator("//") || words_.at_operator("%")) {
    const TemplateToken word = words_.take();
    ExpressionPtr node = make(Kind::kArithmetic, word.line, word.text);
    node->parts.push_back(std::move(left));
    node->parts.push_back(power());
    left = finished(std::move(node));
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = sign(true);
  while (words_.at_operator("**")) {
    ExpressionPtr node = make(Kind::kArithmetic, words_.take().line, "**");
    node->parts.push_back(std::move(left));
    node->parts.push_back(sign(true));
    left = finished(std::move(node));
  }
  return left;
}

ExpressionPtr ExpressionParser::sign(bool with_filters) {
  ExpressionPtr node;
  if (words_.at_operator("-") || words_.at_operator("+")) {
    enter();
    const TemplateToken word = words_.take();
    node = make(word.text == "-" ? Kind::kNegative : Kind::kPositive, word.line);
    node->parts.push_back(sign(false));
    node = finished(std::move(node));
    --nesting_;
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filters(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::primary() {
  const TemplateToken& token = words_.peek();
  ExpressionPtr node = make(Kind::kConstant, token.line);
  if (token.kind == TemplateToken::kName) {
    const std::string name = words_.take().text;
    if (name == "true" || name == "True") node->constant = TemplateValue::boolean(true);
    else if (name == "false" || name == "False") node->constant = TemplateValue::boolean(false);
    else if (name == "none" || name == "None") node->constant = TemplateValue::none();
    else node = make(Kind::kName, node->line, name);
  } else if (token.kind == TemplateToken::kString) {
    std::string text;
    while (words_.peek().kind == TemplateToken::kString) text += words_.take().text;  // neighbours are one text
    node->constant = TemplateValue::text(std::move(text));
  } else if (token.kind == TemplateToken::kInteger) {
    int64_t number = 0;
    const auto parsed = std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
    if (parsed.ec != std::errc()) throw words_.wrong("an integer of at most 64 bits");
    node->constant = TemplateValue::integer(number);
    words_.take();
  } else if (token.kind == TemplateToken::kReal) {
    node->constant = TemplateValue::real(std::strtod(words_.take().text.c_str(), nullptr));
  } else if (words_.at_operator("(") || words_.at_operator("[")) {
    return bracketed();
  } else if (words_.at_operator("{")) {
    return braced();
  } else {
    throw words_.wrong("an expression");
  }
  return node;
}

// ( ... ) or [ ... ]
ExpressionPtr ExpressionParser::bracketed() {
  const TemplateToken open = words_.take();
  if (open.text == "(") {
    ExpressionPtr node = words_.at_operator(")") ? make(Kind::kTuple, open.line) : tuple();
    words_.expect_operator(")");
    return node;
  }
  ExpressionPtr node = make(Kind::kList, open.line);
  while (!words_.at_operator("]")) {
    if (!node->parts.empty()) {
      words_.expect_operator(",");
      if (words_.at_operator("]")) break;
    }
    node->parts.push_back(expression());
  }
  words_.expect_operator("]");
  return finished(std::move(node));
}

ExpressionPtr ExpressionParser::braced() {
  ExpressionPtr node = make(Kind::kDict, words_.take().line);
  while (!words_.at_operator("}")) {
    if (!node->parts.empty()) {
      words_.expect_operator(",");
      if (words_.at_operator("}")) break;
    }
    node->parts.push_back(expression());
    words_.expect_operator(":");
    node->parts.push_back(expression());
  }
  words_.expect_operator("}");
  return finished(std::move(node));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr base) {
  for (;;) {
    if (words_.at_operator(".") || words_.at_operator("[")) {
      base = subscript(std::move(base));
    } else if (words_.at_operator("(")) {
      ExpressionPtr node = make(Kind::kCall, words_.line());
      node->parts.push_back(std::move(base));
      arguments(*node);
      base = finished(std::move(node));
    } else {
      return base;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr base) {
  const int line = words_.line();
  if (words_.accept_operator(".")) {
    ExpressionPtr node = make(Kind::kAttribute, line);
    if (words_.peek().kind == TemplateToken::kInteger) {
      node->kind = Kind::kItem;
      node->parts.push_back(std::move(base));
      node->parts.push_back(primary());
      return finished(std::move(node));
    }
    node->name = words_.expect_name("a name after '.'");
    node->parts.push_back(std::move(base));
    return finished(std::move(node));
  }
  words_.expect_operator("[");
  ExpressionPtr node = make(Kind::kItem, line);
  node->parts.push_back(std::move(base));
  node->parts.push_back(words_.at_operator(":") ? nullptr : expression());
  while (words_.accept_operator(":") && node->parts.size() < 4) {
    node->kind = Kind::kSlice;
    node->parts.push_back(words_.at_operator(":") || words_.at_operator("]") ? nullptr : expression());
  }
  if (node->kind == Kind::kSlice) node->parts.resize(4);
  words_.expect_operator("]");
  return finished(std::move(node));
}

void ExpressionParser::arguments(TemplateExpression& call) {
  words_.expect_operator("(");
  for (bool first = true; !words_.at_operator(")"); first = false) {
    if (!first) {
      words_.expect_operator(",");
      if (words_.at_operator(")")) break;
    }
    if (words_.at_operator("*") || words_.at_operator("**")) throw template_error(Code::kUnimplemented, words_.line(), "{}arguments are not supported", words_.peek().text);
    const TemplateToken& next = words_.peek(1);
    if (words_.peek().kind == TemplateToken::kName && next.kind == TemplateToken::kOperator && next.text == "=") {
      std::string name = words_.take().text;
      words_.take();
      call.named.emplace_back(std::move(name), expression());
    } else {
      if (!call.named.empty()) throw words_.wrong("a named argument after another one");
      call.parts.push_back(expression());
    }
    if (call.parts.size() + call.named.size() > kMaxTemplateArguments) {
      throw template_error(Code::kUnimplemented, words_.line(), "more than {} arguments are not supported", kMaxTemplateArguments - 1);
    }
  }
  words_.expect_operator(")");
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr base) {
  for (;;) {
    if (words_.at_operator("|")) {
      ExpressionPtr node = make(Kind::kFilter, words_.take().line);
      node->name = words_.expect_name("the name of a filter");
      node->parts.push_back(std::move(base));
      if (words_.at_operator("(")) arguments(*node);
      base = finished(std::move(node));
    } else if (words_.at_name("is")) {
      base = test(std::move(base));
    } else if (words_.at_operator("(")) {
      base = postfix(std::move(base));
    } else {
      return base;
    }
  }
}

ExpressionPtr ExpressionParser::filters_of_block() {
  ExpressionPtr node = make(Kind::kFilter, words_.line());
  node->name = words_.expect_name("the name of a filter");
  node->parts.push_back(make(Kind::kName, node->line, kFilteredBody));
  if (words_.at_operator("(")) arguments(*node);
  return filters(finished(std::move(node)));
}

// What may stand behind the name of a test without brackets: `is divisibleby 3`.
bool ExpressionParser::at_argument() const {
  const TemplateToken& token = words_.peek();
  if (token.kind == TemplateToken::kName) {
    static constexpr std::string_view kOthers[] = {"else", "or", "and", "if", "is", "in", "not"};
    return std::find(std::begin(kOthers), std::end(kOthers), token.text) == std::end(kOthers);
  }
  return token.kind == TemplateToken::kString || token.kind == TemplateToken::kInteger || token.kind == TemplateToken::kReal ||
         words_.at_operator("[") || words_.at_operator("{");
}

ExpressionPtr ExpressionParser::test(ExpressionPtr base) {
  ExpressionPtr node = make(Kind::kTest, words_.take().line);
  const bool negated = words_.accept_name("not");
  node->name = words_.expect_name("the name of a test");
  node->parts.push_back(std::move(base));
  if (words_.at_operator("(")) arguments(*node);
  else if (at_argument()) node->parts.push_back(postfix(primary()));
  node = finished(std::move(node));
  if (!negated) return node;
  ExpressionPtr inverse = make(Kind::kNot, node->line);
  inverse->parts.push_back(std::move(node));
  return finished(std::move(inverse));
}

}  // namespace penstock::text
