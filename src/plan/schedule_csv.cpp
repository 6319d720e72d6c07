#include "plan/schedule_csv.h"

#include <algorithm>

#include "plan/action_table.h"
#include "plan/schedule_check.h"

namespace penstock::plan {

namespace {

constexpr size_t kMaxRanks = 1024;
constexpr int kMaxIndex = 65535;  // of a stage or a micro-batch
constexpr std::string_view kPairEnd = ")OVERLAP_F_B";

std::string to_string(const Slot& slot) {
  if (slot.empty()) return "";
  if (slot.size() == 1) return plan::to_string(slot[0]);
  return fmt::format("({};{}{}", plan::to_string(slot[0]), plan::to_string(slot[1]), kPairEnd);
}

// A rank's list with its pairs together.
std::vector<Slot> slots_of(const std::vector<Action>& list) {
  std::vector<Slot> slots;
  for (size_t i = 0; i < list.size(); ++i) {
    slots.push_back({list[i]});
    if (list[i].joined && i + 1 < list.size()) slots.back().push_back(list[++i]);
  }
  return slots;
}

// Cells to print, "" = idle.
std::vector<std::vector<std::string>> cells(const Schedule& schedule) {
  std::vector<std::vector<Slot>> rows;
  if (!schedule.has_communication()) {
    rows = time_slots(schedule);
  } else {
    for (const auto& list : schedule.ranks) rows.push_back(slots_of(list));
  }
  std::vector<std::vector<std::string>> texts;
  for (const auto& row : rows) {
    auto& line = texts.emplace_back();
    for (const Slot& slot : row) line.push_back(to_string(slot));
  }
  return texts;
}

// All ranks in step: in each slot a rank does what it stands at if the inputs were made in earlier slots.
class SlotClock {
 public:
  explicit SlotClock(const Schedule& schedule) : schedule_(schedule), made_at_(schedule, kNever) {
    for (const auto& list : schedule.ranks) todo_.push_back(slots_of(list));
    next_.resize(todo_.size(), 0);
    rows_.resize(todo_.size());
  }

  std::vector<std::vector<Slot>> run() {
    for (int now = 0; !finished(); ++now) {
      bool moved = false;
      for (size_t rank = 0; rank < todo_.size(); ++rank) moved = tick(rank, now) || moved;
      if (!moved) throw error(Code::kInvalidArgument, "schedule {} cannot be carried out: {}", schedule_.name, stuck());
    }
    return std::move(rows_);
  }

 private:
  static constexpr int kNever = -1;

  [[nodiscard]] bool ended(size_t rank) const { return next_[rank] == todo_[rank].size(); }
  [[nodiscard]] bool finished() const {
    for (size_t rank = 0; rank < todo_.size(); ++rank) {
      if (!ended(rank)) return false;
    }
    return true;
  }

  bool tick(size_t rank, int now) {
    auto& cell = rows_[rank].emplace_back();
    if (ended(rank)) return false;
    const Slot& slot = todo_[rank][next_[rank]];
    if (!std::ranges::all_of(slot, [&](const Action& action) { return ready(action, now); })) return false;
    for (const Action& action : slot) made_at_[action] = now;
    cell = slot;
    ++next_[rank];
    return true;
  }

  [[nodiscard]] bool ready(const Action& action, int now) const {
    const auto made = [&](ActionKind kind, int stage) {
      const int at = made_at_[{kind, stage, action.microbatch}];
      return at != kNever && at < now;
    };
    if (action.kind == ActionKind::kForward) return action.stage == 0 || made(ActionKind::kForward, action.stage - 1);
    if (!makes_input_grad(action.kind) || action.stage + 1 == schedule_.num_stages) return true;
    return made(ActionKind::kBackward, action.stage + 1) || made(ActionKind::kInputGrad, action.stage + 1);
  }

  [[nodiscard]] std::string stuck() const {
    std::string text;
    for (size_t rank = 0; rank < todo_.size(); ++rank) {
      if (ended(rank)) continue;
      text += fmt::format("{}rank {} stands at {}, whose input nobody has made", text.empty() ? "" : "; ", rank, to_string(todo_[rank][next_[rank]]));
    }
    return text;
  }

  const Schedule& schedule_;
  ActionTable<int> made_at_;
  std::vector<std::vector<Slot>> todo_, rows_;
  std::vector<size_t> next_;
};

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t end; (end = text.find(separator)) != std::string_view::npos; text.remove_prefix(end + 1)) parts.push_back(text.substr(0, end));
  parts.push_back(text);
  return parts;
}

// Bytes that a terminal might obey become '?'.
std::string printable(std::string_view text) {
  std::string shown(text);
  for (char& c : shown) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return shown;
}

bool is_left_out(std::string_view field) {
  field.remove_prefix(std::min(field.find_first_not_of("0123456789"), field.size()));
  return field == "UNSHARD" || field == "RESHARD" || field == "REDUCE_GRAD";
}

// An action, a pair, or nullopt.
std::optional<Slot> parse_slot(std::string_view field) {
  if (!field.starts_with('(') || !field.ends_with(kPairEnd)) {
    const auto action = parse_action(field);
    return action ? std::optional(Slot{*action}) : std::nullopt;
  }
  const auto inner = split(field.substr(1, field.size() - 1 - kPairEnd.size()), ';');
  if (inner.size() != 2) return std::nullopt;
  auto forward = parse_action(inner[0]), backward = parse_action(inner[1]);
  if (!forward || !backward || forward->kind != ActionKind::kForward || backward->kind != ActionKind::kBackward) return std::nullopt;
  forward->joined = true;
  return Slot{*forward, *backward};
}

// Reads the lines of one file.
class CsvReader {
 public:
  explicit CsvReader(const std::string& source) : source_(source) { schedule_.name = source; }

  Result<Schedule> read(std::string_view text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // the byte order mark that spreadsheets write
    while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
    const auto lines = split(text, '\n');
    if (lines.size() > kMaxRanks) return error(Code::kInvalidArgument, "{}: {} lines; expected at most {} ranks", source_, lines.size(), kMaxRanks);
    for (const std::string_view line : lines) {
      if (auto wrong = read_rank(line)) return *wrong;
    }
    if (auto wrong = place_stages()) return *wrong;
    if (const auto problem = check_complete(schedule_)) return error(Code::kInvalidArgument, "{}: {}", source_, *problem);
    return std::move(schedule_);
  }

 private:
  std::optional<Error> read_rank(std::string_view line) {
    auto& list = schedule_.ranks.emplace_back();
    const auto fields = split(line, ',');
    for (size_t i = 0; i < fields.size(); ++i) {
      const std::string_view field = trimmed(fields[i]);
      if (field.empty() || is_left_out(field)) continue;
      const auto slot = parse_slot(field);
      if (!slot) {
        return error(Code::kInvalidArgument, "{}:{}: field {}: expected an action such as 0F0, 3I2, 3W2, 3B2, 0SEND_F0 or (0F8;7B4)OVERLAP_F_B, found '{}'",
                     source_, schedule_.ranks.size(), i + 1, printable(field.substr(0, 80)));
      }
      for (const Action& action : *slot) {
        if (action.stage > kMaxIndex || action.microbatch > kMaxIndex) {
          return error(Code::kInvalidArgument, "{}:{}: field {}: expected stages and micro-batches up to {}, found {}", source_,
                       schedule_.ranks.size(), i + 1, kMaxIndex, plan::to_string(action));
        }
        list.push_back(action);
      }
    }
    if (!list.empty()) return std::nullopt;
    return error(Code::kInvalidArgument, "{}:{}: expected actions of rank {}, found none", source_, schedule_.ranks.size(), schedule_.ranks.size() - 1);
  }

  std::optional<Error> place_stages() {
    schedule_.num_ranks = static_cast<int>(schedule_.ranks.size());
    for (const auto& list : schedule_.ranks) {
      for (const Action& action : list) {
        schedule_.num_stages = std::max(schedule_.num_stages, action.stage + 1);
        schedule_.num_microbatches = std::max(schedule_.num_microbatches, action.microbatch + 1);
      }
    }
    if (int64_t{schedule_.num_stages} * schedule_.num_microbatches > kMaxCells) {
      return error(Code::kInvalidArgument, "{}: {} stages x {} micro-batches; expected a product of at most {}", source_, schedule_.num_stages,
                   schedule_.num_microbatches, kMaxCells);
    }
    schedule_.stage_ranks.assign(static_cast<size_t>(schedule_.num_stages), -1);
    for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
      for (const Action& action : schedule_.ranks[static_cast<size_t>(rank)]) schedule_.stage_ranks[static_cast<size_t>(action.stage)] = rank;
    }
    const auto nowhere = std::ranges::find(schedule_.stage_ranks, -1);
    if (nowhere == schedule_.stage_ranks.end()) return std::nullopt;
    return error(Code::kInvalidArgument, "{}: stage {} of {} has no action", source_, nowhere - schedule_.stage_ranks.begin(), schedule_.num_stages);
  }

  static constexpr int64_t kMaxCells = 4'000'000;
  const std::string source_;
  Schedule schedule_;
};

}  // namespace

std::vector<std::vector<Slot>> time_slots(const Schedule& schedule) {
  PENSTOCK_CHECK(!schedule.has_communication(), "messages have no slot");
  return SlotClock(schedule).run();
}

std::string to_csv(const Schedule& schedule) {
  std::string text;
  for (const auto& row : cells(schedule)) text += fmt::format("{}\n", fmt::join(row, ","));
  return text;
}

std::string to_text(const Schedule& schedule) {
  const auto rows = cells(schedule);
  size_t width = 1;
  for (const auto& row : rows) {
    for (const std::string& cell : row) width = std::max(width, cell.size());
  }
  const size_t rank_width = std::to_string(rows.size() - 1).size();
  std::string text;
  for (size_t rank = 0; rank < rows.size(); ++rank) {
    std::string line = fmt::format("rank {:>{}} |", rank, rank_width);
    for (const std::string& cell : rows[rank]) line += fmt::format(" {:<{}}", cell.empty() ? "." : cell, width);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

Result<Schedule> parse_csv(std::string_view text, const std::string& source) {
  if (text.size() > kMaxCsvBytes) return error(Code::kInvalidArgument, "{}: {} bytes; expected at most {}", source, text.size(), kMaxCsvBytes);
  return CsvReader(source).read(text);
}

}  // namespace penstock::plan
