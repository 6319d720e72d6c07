#pragma once
// A chat template, parsed. For the .cpp files of this folder.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template_value.h"

namespace penstock::text {

struct TemplateExpression;
using ExpressionPtr = std::unique_ptr<TemplateExpression>;

struct TemplateExpression {
  enum Kind {
    kConstant,   // constant
    kName,       // name
    kList,       // parts
    kTuple,      // parts
    kDict,       // parts: key, value, key, value ...
    kAttribute,  // parts[0].name
    kItem,       // parts[0][parts[1]]
    kSlice,      // parts[0][parts[1]:parts[2]:parts[3]], each of the last three perhaps null
    kCall,       // parts[0](parts[1] ..., named)
    kFilter,     // parts[0] | name(parts[1] ..., named)
    kTest,       // parts[0] is name(parts[1] ...)
    kNot,        // not parts[0]
    kNegative,   // -parts[0]
    kPositive,   // +parts[0]
    kAnd,
    kOr,
    kCompare,    // parts[0] operators[0] parts[1] operators[1] parts[2] ...
    kArithmetic, // parts[0] name parts[1]
    kJoin,       // parts[0] ~ parts[1]
    kCondition,  // parts[0] if parts[1] else parts[2], which may be missing
  };
  Kind kind = kConstant;
  int line = 1;
  int depth = 1;  // of the tree below
  std::string name;
  TemplateValue constant;
  std::vector<ExpressionPtr> parts;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> operators;
};

constexpr const char* kFilteredBody = " body";  // no name that a template can write

struct TemplateStatement {
  enum Kind {
    kText,      // text
    kPrint,     // value
    kIf,        // value: body, else otherwise
    kFor,       // names in value, those with condition: body; otherwise when there was none
    kSet,       // names = value, or names[0].member = value
    kSetBlock,  // names[0] = what body writes
    kMacro,     // names[0](parameters): body; member: kwargs or varargs if the body has it
    kScope,     // body; {% generation %}, which marks what the assistant writes
    kFilter,    // value of what body writes, which value knows as kFilteredBody
    kWith,      // body, in which parameters have values
    kBreak,
    kContinue,
  };
  Kind kind = kText;
  int line = 1;
  std::string text, member;
  std::vector<std::string> names;
  ExpressionPtr value, condition;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // with defaults, or null
  std::vector<TemplateStatement> body, otherwise;
};

// Throws Error kDataLoss (broken) or kUnimplemented (a construct outside our subset), naming the construct and the line.
[[nodiscard]] std::vector<TemplateStatement> parse_template(std::string_view source);

}  // namespace penstock::text
