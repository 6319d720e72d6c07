#pragma once
// Looks after every model, time and again: worker groups that stay silent or are broken, and too few or too many of them (ServedModel::look_after).
// Models that were unregistered are destroyed here when nobody holds them any more.
#include <thread>

#include "base/mutex.h"
#include "frontend/model_registry.h"

namespace penstock::frontend {

// Threads: one of its own, from the constructor to the destructor, which waits for it (no longer than a model takes to start or dismiss a group:
//          that waits for nothing).
class Caretaker {
 public:
  // The registry must outlive this.
  explicit Caretaker(ModelRegistry& registry);
  ~Caretaker();
  Caretaker(const Caretaker&) = delete;
  Caretaker& operator=(const Caretaker&) = delete;

 private:
  void run() EXCLUDES(mutex_);
  static void look_after(ServedModel& model);

  ModelRegistry& registry_;
  Mutex mutex_;
  CondVar stop_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace penstock::frontend
