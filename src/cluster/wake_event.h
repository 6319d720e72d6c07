#pragma once
// Wakes a thread that waits in poll().

namespace penstock::cluster {

// Threads: every method from any thread.
class WakeEvent {
 public:
  // Throws Error kUnavailable when the process may open no more files.
  WakeEvent();
  ~WakeEvent();
  WakeEvent(const WakeEvent&) = delete;
  WakeEvent& operator=(const WakeEvent&) = delete;

  // Makes fd() readable until clear().
  void set();
  void clear();
  [[nodiscard]] int fd() const { return fd_; }

 private:
  const int fd_;
};

}  // namespace penstock::cluster
