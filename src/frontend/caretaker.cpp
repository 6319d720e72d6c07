#include "frontend/caretaker.h"

#include <exception>

#include "base/log.h"

namespace penstock::frontend {
namespace {

constexpr milliseconds kPeriod{200};  // a fraction of the times that a plan waits

}  // namespace

Caretaker::Caretaker(ModelRegistry& registry) : registry_(registry), thread_([this] { run(); }) {}

Caretaker::~Caretaker() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    stop_.notify_all();
  }
  thread_.join();
}

// What goes wrong for one model (no descriptor, no memory) is tried again, and is no reason to leave the others.
void Caretaker::look_after(ServedModel& model) {
  try {
    model.look_after();
  } catch (const std::exception& failure) {
    spdlog::warn("model '{}': its workers cannot be looked after now, which is tried again: {}", model.name(), failure.what());
  }
}

void Caretaker::run() {
  for (;;) {
    for (const auto& model : registry_.models()) look_after(*model);
    registry_.bury();
    MutexLock lock(mutex_);
    const Deadline next = Deadline::after(kPeriod);
    while (!stopping_ && !next.passed()) (void)stop_.wait(mutex_, next);
    if (stopping_) return;
  }
}

}  // namespace penstock::frontend
