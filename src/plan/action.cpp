#include "plan/action.h"

#include <array>
#include <charconv>

#include "base/error.h"

namespace penstock::plan {

namespace {

struct KindName {
  ActionKind kind;
  std::string_view name;
};
constexpr std::array<KindName, 8> kKindNames = {{{ActionKind::kForward, "F"},
                                                 {ActionKind::kBackward, "B"},
                                                 {ActionKind::kInputGrad, "I"},
                                                 {ActionKind::kWeightGrad, "W"},
                                                 {ActionKind::kSendForward, "SEND_F"},
                                                 {ActionKind::kRecvForward, "RECV_F"},
                                                 {ActionKind::kSendBackward, "SEND_B"},
                                                 {ActionKind::kRecvBackward, "RECV_B"}}};

// Takes the digits at the front of `text`; nullopt when there are none or they do not fit an int.
std::optional<int> take_number(std::string_view& text) {
  int number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (status != std::errc() || text.front() == '-') return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

ActionKind counterpart(ActionKind kind) {
  switch (kind) {
    case ActionKind::kSendForward: return ActionKind::kRecvForward;
    case ActionKind::kRecvForward: return ActionKind::kSendForward;
    case ActionKind::kSendBackward: return ActionKind::kRecvBackward;
    case ActionKind::kRecvBackward: return ActionKind::kSendBackward;
    default: break;
  }
  PENSTOCK_CHECK(!is_compute(kind), "{} has no counterpart", to_string(kind));
  return kind;
}

}  // namespace

int peer_stage(const Action& action) {
  PENSTOCK_CHECK(!is_compute(action.kind), "{} has no peer", to_string(action));
  const bool to_next = action.kind == ActionKind::kSendForward || action.kind == ActionKind::kRecvBackward;
  return action.stage + (to_next ? 1 : -1);
}

Action counterpart(const Action& action) { return {counterpart(action.kind), peer_stage(action), action.microbatch}; }

std::string_view to_string(ActionKind kind) { return kKindNames.at(static_cast<size_t>(kind)).name; }

std::string to_string(const Action& action) {
  return fmt::format("{}{}{}", action.stage, to_string(action.kind), action.microbatch);
}

std::optional<Action> parse_action(std::string_view text) {
  const auto stage = take_number(text);
  if (!stage) return std::nullopt;
  const size_t name_length = text.find_first_of("0123456789");
  if (name_length == std::string_view::npos) return std::nullopt;
  for (const auto& [kind, name] : kKindNames) {
    if (text.substr(0, name_length) != name) continue;
    text.remove_prefix(name_length);
    const auto microbatch = take_number(text);
    if (!microbatch || !text.empty()) return std::nullopt;
    return Action{kind, *stage, *microbatch};
  }
  return std::nullopt;
}

}  // namespace penstock::plan
