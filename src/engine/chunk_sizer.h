#pragma once
// How many rows of new prompts a step may carry so that texts which stream do not stall.

namespace penstock::engine {

// Predicts a step's time as that of a step without prompts plus a time for each row of a prompt, both learned from the steps that were. A
// row costs less in a large chunk than in a small one; what counts is what rows cost in chunks of the size that it gave last.
//
// Threads: one. Pure: times come from the caller.
class ChunkSizer {
 public:
  explicit ChunkSizer(int max_rows) : max_rows_(max_rows) {}

  // A step has taken `ms`. streaming: sequences that got their next token, not their first.
  void observe(int streaming, int prompt_rows, double ms);

  // Rows with which a step is predicted to take kStretch times what it takes without; at least kMinRows, so that prompts get on.
  [[nodiscard]] int prompt_rows() const;

  static constexpr double kStretch = 1.8;  // below 2: predictions err
  static constexpr int kMinRows = 4;
  static constexpr int kFirstRows = 32;    // nothing is known yet

 private:
  const int max_rows_;
  double step_ms_ = 0;  // without prompts; 0 = not known
  double row_ms_ = 0;
  bool measured_beside_streams_ = false;
};

}  // namespace penstock::engine
