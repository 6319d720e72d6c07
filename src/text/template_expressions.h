#pragma once
// The expressions of a chat template. For the .cpp files of this folder.
#include <string_view>
#include <vector>

#include "text/template_lexer.h"
#include "text/template_tree.h"

namespace penstock::text {

// The words of a template, one after another.
class TemplateWords {
 public:
  explicit TemplateWords(std::vector<TemplateToken> tokens) : tokens_(std::move(tokens)) {}
  [[nodiscard]] const TemplateToken& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  [[nodiscard]] int line() const { return peek().line; }
  TemplateToken take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  [[nodiscard]] bool at(TemplateToken::Kind kind, std::string_view text) const { return peek().kind == kind && peek().text == text; }
  [[nodiscard]] bool at_operator(std::string_view text) const { return at(TemplateToken::kOperator, text); }
  [[nodiscard]] bool at_name(std::string_view text) const { return at(TemplateToken::kName, text); }
  // Takes the next word if it is this one.
  bool accept_operator(std::string_view text);
  bool accept_name(std::string_view text);
  void expect_operator(std::string_view text);
  // Any name.
  std::string expect_name(std::string_view what);
  void expect(TemplateToken::Kind kind, std::string_view what);
  // How many words are taken; whether a variable of this name stands among those behind the first `begin` ones.
  [[nodiscard]] size_t place() const { return at_; }
  [[nodiscard]] bool has_variable_since(size_t begin, std::string_view name) const;
  // kDataLoss: "expected `what`, found ...".
  [[nodiscard]] Error wrong(std::string_view what) const;

 private:
  std::vector<TemplateToken> tokens_;  // the last one is kEnd
  size_t at_ = 0;
};

constexpr size_t kMaxTemplateArguments = 255;  // of a call, filter or test, and parameters of a macro

// Jinja's grammar: from the loosest to the tightest binding.
class ExpressionParser {
 public:
  explicit ExpressionParser(TemplateWords& words) : words_(words) {}
  // One expression, or several with commas as a tuple. Without `condition`, "x if y else z" ends before "if".
  [[nodiscard]] ExpressionPtr tuple(bool condition = true);
  [[nodiscard]] ExpressionPtr expression();
  // What stands in {% filter %}: names of filters with '|' between them, of kFilteredBody.
  [[nodiscard]] ExpressionPtr filters_of_block();

 private:
  ExpressionPtr alternatives(), conjunction(), negation(), comparison(), sum(), join(), product(), power(), primary(), bracketed(), braced();
  ExpressionPtr sign(bool with_filters);
  ExpressionPtr postfix(ExpressionPtr base);
  ExpressionPtr filters(ExpressionPtr base);
  ExpressionPtr subscript(ExpressionPtr base);
  ExpressionPtr test(ExpressionPtr base);
  void arguments(TemplateExpression& call);
  [[nodiscard]] bool at_argument() const;
  [[nodiscard]] ExpressionPtr make(TemplateExpression::Kind kind, int line, std::string name = {}) const;
  // Fixes the depth when all parts are there.
  ExpressionPtr finished(ExpressionPtr node);
  void enter();

  TemplateWords& words_;
  int nesting_ = 0;
};

}  // namespace penstock::text
