// The statements of a chat template.
#include <algorithm>

#include "text/template_expressions.h"
#include "text/template_tree.h"

namespace penstock::text {
namespace {

using Kind = TemplateStatement::Kind;
constexpr int kMaxNesting = 50;
constexpr size_t kSourceLimit = 1 << 20;  // bytes

class StatementParser {
 public:
  explicit StatementParser(TemplateWords words) : words_(std::move(words)), expressions_(words_) {}

  std::vector<TemplateStatement> run() {
    std::vector<TemplateStatement> body = statements({});
    if (words_.peek().kind != TemplateToken::kEnd) throw words_.wrong("the end of the template");
    return body;
  }

 private:
  using Ends = std::vector<std::string_view>;

  // Up to a block that starts with one of `ends`; that block's begin and name are left where they are.
  std::vector<TemplateStatement> statements(const Ends& ends) {
    if (++nesting_ > kMaxNesting) throw template_error(Code::kUnimplemented, words_.line(), "blocks nested deeper than {} are not supported", kMaxNesting);
    std::vector<TemplateStatement> body;
    for (;;) {
      const TemplateToken& token = words_.peek();
      if (token.kind == TemplateToken::kEnd) {
        if (ends.empty()) break;
        throw words_.wrong(fmt::format("{{% {} %}}", ends.back()));
      }
      if (token.kind == TemplateToken::kText) {
        body.push_back(start(Kind::kText));
        body.back().text = words_.take().text;
      } else if (token.kind == TemplateToken::kPrintBegin) {
        body.push_back(start(Kind::kPrint));
        words_.take();
        body.back().value = expressions_.tuple();
        words_.expect(TemplateToken::kPrintEnd, "'}}'");
      } else {
        const std::string& name = words_.peek(1).text;
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) break;
        words_.take();
        body.push_back(block(words_.expect_name("the name of a block")));
      }
    }
    --nesting_;
    return body;
  }

  [[nodiscard]] TemplateStatement start(Kind kind) const {
    TemplateStatement statement;
    statement.kind = kind;
    statement.line = words_.line();
    return statement;
  }

  void end_of_block() { words_.expect(TemplateToken::kBlockEnd, "'%}'"); }

  // {% name %}
  void expect_block(std::string_view name) {
    words_.expect(TemplateToken::kBlockBegin, fmt::format("{{% {} %}}", name));
    if (!words_.accept_name(name)) throw words_.wrong(fmt::format("'{}'", name));
    end_of_block();
  }

  TemplateStatement block(const std::string& name) {
    if (name == "if") return if_block();
    if (name == "for") return for_block();
    if (name == "set") return set_block();
    if (name == "macro") return macro_block();
    if (name == "generation") return plain_block(Kind::kScope, "endgeneration");
    if (name == "filter") return filter_block();
    if (name == "with") return with_block();
    if (name == "break" || name == "continue") {
      if (loops_ == 0) throw template_error(Code::kDataLoss, words_.line(), "{{% {} %}} outside a loop", name);
      TemplateStatement statement = start(name == "break" ? Kind::kBreak : Kind::kContinue);
      end_of_block();
      return statement;
    }
    throw template_error(Code::kUnimplemented, words_.line(), "{{% {} %}} is not supported", name);
  }

  TemplateStatement plain_block(Kind kind, std::string_view end) {
    TemplateStatement statement = start(kind);
    end_of_block();
    statement.body = scoped(end);
    expect_block(end);
    return statement;
  }

  // The body of a block whose variables are its own.
  std::vector<TemplateStatement> scoped(std::string_view end) {
    ++scopes_;
    std::vector<TemplateStatement> body = statements({end});
    --scopes_;
    return body;
  }

  TemplateStatement filter_block() {
    ExpressionPtr filters = expressions_.filters_of_block();
    TemplateStatement statement = plain_block(Kind::kFilter, "endfilter");
    statement.value = std::move(filters);
    return statement;
  }

  TemplateStatement with_block() {
    std::vector<std::pair<std::string, ExpressionPtr>> values;
    while (words_.peek().kind != TemplateToken::kBlockEnd) {
      if (!values.empty()) words_.expect_operator(",");
      std::string name = words_.expect_name("the name of a variable");
      words_.expect_operator("=");
      values.emplace_back(std::move(name), expressions_.expression());
    }
    TemplateStatement statement = plain_block(Kind::kWith, "endwith");
    statement.parameters = std::move(values);
    return statement;
  }

  // `elif` becomes an `if` in what is otherwise done; built flat and then folded, so that long chains take no stack.
  TemplateStatement if_block() {
    std::vector<TemplateStatement> branches;
    std::vector<TemplateStatement> otherwise;
    for (;;) {
      branches.push_back(start(Kind::kIf));
      branches.back().value = expressions_.tuple();
      end_of_block();
      branches.back().body = statements({"elif", "else", "endif"});
      words_.take();
      if (words_.accept_name("elif")) {
        if (branches.size() >= kMaxNesting) throw template_error(Code::kUnimplemented, words_.line(), "more than {} branches are not supported", kMaxNesting);
        continue;
      }
      if (words_.accept_name("else")) {
        end_of_block();
        otherwise = statements({"endif"});
        words_.take();
      }
      words_.expect_name("endif");
      end_of_block();
      break;
    }
    while (branches.size() > 1) {
      branches.back().otherwise = std::move(otherwise);
      otherwise.clear();
      otherwise.push_back(std::move(branches.back()));
      branches.pop_back();
    }
    branches.front().otherwise = std::move(otherwise);
    return std::move(branches.front());
  }

  TemplateStatement for_block() {
    TemplateStatement statement = start(Kind::kFor);
    const bool bracket = words_.accept_operator("(");
    do {
      statement.names.push_back(words_.expect_name("the name of a loop variable"));
    } while (words_.accept_operator(","));
    if (bracket) words_.expect_operator(")");
    if (!words_.accept_name("in")) throw words_.wrong("'in'");
    statement.value = expressions_.tuple(/*condition=*/false);
    if (words_.accept_name("if")) statement.condition = expressions_.expression();
    if (words_.at_name("recursive")) throw template_error(Code::kUnimplemented, words_.line(), "a recursive loop is not supported");
    end_of_block();
    ++loops_;
    ++scopes_;
    statement.body = statements({"else", "endfor"});
    --scopes_;
    --loops_;
    words_.take();
    if (words_.accept_name("else")) {
      end_of_block();
      statement.otherwise = scoped("endfor");
      words_.take();
    }
    words_.expect_name("endfor");
    end_of_block();
    return statement;
  }

  TemplateStatement set_block() {
    TemplateStatement statement = start(Kind::kSet);
    do {
      statement.names.push_back(words_.expect_name("the name of a variable"));
    } while (words_.accept_operator(","));
    if (statement.names.size() == 1 && words_.accept_operator(".")) statement.member = words_.expect_name("a name after '.'");
    if (words_.accept_operator("=")) {
      statement.value = expressions_.tuple();
      end_of_block();
      return statement;
    }
    if (words_.peek().kind != TemplateToken::kBlockEnd) throw words_.wrong("'='");
    if (statement.names.size() > 1 || !statement.member.empty()) throw words_.wrong("'='");
    TemplateStatement written = plain_block(Kind::kSetBlock, "endset");
    written.names = std::move(statement.names);
    return written;
  }

  TemplateStatement macro_block() {
    if (scopes_ > 0) throw template_error(Code::kUnimplemented, words_.line(), "a macro inside a block with variables of its own is not supported");
    TemplateStatement statement = start(Kind::kMacro);
    statement.names.push_back(words_.expect_name("the name of a macro"));
    words_.expect_operator("(");
    while (!words_.at_operator(")")) {
      if (!statement.parameters.empty()) words_.expect_operator(",");
      std::string name = words_.expect_name("the name of a parameter");
      statement.parameters.emplace_back(std::move(name), words_.accept_operator("=") ? expressions_.expression() : nullptr);
      if (statement.parameters.size() > kMaxTemplateArguments) {
        throw template_error(Code::kUnimplemented, words_.line(), "more than {} parameters are not supported", kMaxTemplateArguments);
      }
    }
    words_.take();
    const int loops = std::exchange(loops_, 0);
    const size_t begin = words_.place();
    TemplateStatement body = plain_block(Kind::kMacro, "endmacro");
    loops_ = loops;
    statement.body = std::move(body.body);
    for (const char* name : {"kwargs", "varargs"}) {
      const bool own = std::any_of(statement.parameters.begin(), statement.parameters.end(), [&](const auto& parameter) { return parameter.first == name; });
      if (!own && words_.has_variable_since(begin, name)) statement.member = name;
    }
    return statement;
  }

  TemplateWords words_;
  ExpressionParser expressions_;
  int nesting_ = 0, loops_ = 0;
  int scopes_ = 0;  // blocks around the place that have variables of their own
};

}  // namespace

std::vector<TemplateStatement> parse_template(std::string_view source) {
  if (source.size() > kSourceLimit) throw error(Code::kDataLoss, "chat template: expected at most {} bytes, found {}", kSourceLimit, source.size());
  return StatementParser(TemplateWords(cut_template(source))).run();
}

}  // namespace penstock::text
