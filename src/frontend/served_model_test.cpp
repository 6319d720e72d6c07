#include "frontend/served_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/temp_dir.h"
#include "frontend/fake_worker_client_test.h"
#include "frontend/job.h"

namespace penstock::frontend {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> numbered(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

// The variable as a running process got it; nullopt when the process has gone, or never had it.
std::optional<std::string> variable_of(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/environ", std::ios::binary);
  for (std::string line; std::getline(file, line, '\0');) {
    if (line.starts_with(name + "=")) return line.substr(name.size() + 1);
  }
  return std::nullopt;
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream in(list);
  for (std::string part; std::getline(in, part, ',');) parts.push_back(part);
  return parts;
}

// Models whose workers are processes that do nothing, on emulated devices.
class ServedModelTest : public testing::Test {
 protected:
  explicit ServedModelTest(int num_devices = 8, int num_cores = 4) : devices(numbered(num_devices)), cores(numbered(num_cores)) {
    write_file_atomic(dir_.path() / "worker", "#!/bin/sh\nexec sleep 1000\n");
    std::filesystem::permissions(dir_.path() / "worker", std::filesystem::perms::owner_all);
    write_file_atomic(dir_.path() / "config.json", "{}");
  }
  ~ServedModelTest() override { spdlog::set_level(spdlog::level::info); }

  ModelSpec spec(const std::string& name, int ranks) const {
    ModelSpec spec;
    spec.name = name;
    spec.config.handler.model_path = dir_.path();
    spec.config.parallel_type = config::ParallelType::kPipeline;
    spec.config.parallel_level = ranks;
    return spec;
  }
  std::shared_ptr<ServedModel> make(const ModelSpec& spec, int groups) {
    ServingContext context{config_, devices, cores, {dir_.path() / "worker", ""}, {}, dir_.path() / "logs", dir_.path(),
                           [](const auto&, size_t, const auto&) { return std::make_shared<FakeWorkerClient>(); }, {}};
    context.backoff_unit = milliseconds(1);
    auto model = ServedModel::create(spec, context, WorkerRange{groups, groups});
    if (!model) throw model.error();
    (*model)->start();
    return *model;
  }
  static Deadline soon() { return Deadline::after(seconds(20)); }  // generous: only a failing test waits so long
  static std::optional<Error> scale(ServedModel& model, int groups) {
    return model.scale({groups, groups}, Deadline::after(milliseconds(0)));
  }
  static std::vector<std::string> device_lists(const ServedModel& model) {
    std::vector<std::string> lists;
    for (const auto& worker : model.workers()) {
      if (!worker.leaving) lists.push_back(cluster::device_list(worker.devices));
    }
    return lists;
  }

  cluster::DeviceAssignment devices;
  cluster::DeviceAssignment cores;

 private:
  TempDir dir_;
  const config::ServerConfig config_;
};

TEST_F(ServedModelTest, EightDevicesMakeTwoGroupsOfFour) {
  const auto model = make(spec("large", 4), 2);
  EXPECT_THAT(device_lists(*model), ElementsAre("0,1,2,3", "4,5,6,7"));
  ASSERT_EQ(model->wait_loaded(soon()).state, LoadState::kLoaded);
  for (const auto& worker : model->workers()) {
    for (const pid_t pid : worker.pids) EXPECT_EQ(variable_of(pid, "CUDA_VISIBLE_DEVICES"), cluster::device_list(worker.devices));
  }
  const auto refused = scale(*model, 3);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->code(), Code::kResourceExhausted);
  EXPECT_THAT(refused->message(), HasSubstr("needs 4 GPU(s): not enough free GPUs"));
  EXPECT_THAT(device_lists(*model), ElementsAre("0,1,2,3", "4,5,6,7")) << "nothing has changed";
}

TEST_F(ServedModelTest, TheDevicesOfAGroupThatLeavesAreThoseOfTheNextOne) {
  const auto model = make(spec("large", 4), 2);
  ASSERT_EQ(model->wait_loaded(soon()).state, LoadState::kLoaded);
  ASSERT_FALSE(scale(*model, 1));
  ASSERT_EQ(model->wait_loaded(soon()).state, LoadState::kLoaded);
  EXPECT_EQ(devices.num_free(), 4);
  ASSERT_FALSE(scale(*model, 2));
  EXPECT_THAT(device_lists(*model), ElementsAre("0,1,2,3", "4,5,6,7")) << "the first group has kept its own";
}

TEST_F(ServedModelTest, ACpuGroupComputesOnCoresOfItsOwnWhileThereAreEnough) {
  ModelSpec cpu = spec("cpu", 1);
  cpu.config.device_type = config::DeviceType::kCpu;
  EXPECT_EQ(make(cpu, 2)->wait_loaded(soon()).state, LoadState::kLoaded);
  EXPECT_EQ(cores.num_free(), 4) << "nobody has said how many threads a rank has";
  cpu.config.torchrun.omp_num_threads = 3;
  const auto one = make(cpu, 1);
  EXPECT_EQ(cores.num_free(), 1);
  EXPECT_EQ(make(cpu, 1)->wait_loaded(soon()).state, LoadState::kLoaded) << "too few for a second one: it runs all the same";
  EXPECT_EQ(cores.num_free(), 1);
  one->stop(Deadline::after(milliseconds(0)));
  EXPECT_EQ(cores.num_free(), 4);
}

TEST_F(ServedModelTest, AGroupThatIsGivenUpDoesNotKeepAnotherFromComing) {
  ModelSpec small = spec("small", 1);
  small.config.max_retry_timeout = seconds(0);
  small.config.scale_up_after = milliseconds(0);
  const auto model = make(small, 2);
  ASSERT_EQ(model->wait_loaded(soon()).state, LoadState::kLoaded);
  ASSERT_EQ(::kill(model->workers().at(1).pids.at(0), SIGKILL), 0);
  const auto wait_until = [](const auto& condition) {
    const Deadline deadline = soon();
    while (!condition() && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
    return condition();
  };
  ASSERT_TRUE(wait_until([&] { return model->wait_loaded(Deadline::after(milliseconds(0))).failure.has_value(); }));
  std::vector<std::shared_ptr<Job>> jobs;
  for (int i = 0; i < 5; ++i) {  // one more than the other group runs at once
    jobs.push_back(model->jobs().submit(text::GenerationRequest{}, {}, std::make_shared<RecordingObserver>()).value());
  }
  EXPECT_TRUE(wait_until([&] {
    model->look_after();
    const auto workers = model->workers();
    return workers.size() == 2 && workers[1].group == 2 && workers[1].state == GroupState::kReady;
  }));
  for (const auto& job : jobs) model->jobs().cancel(*job);
}

// What the random test does with two models that share the devices, and what it looks at after each step.
class DeviceSoak : public ServedModelTest {
 protected:
  void step() {
    const size_t which = random() % 2;
    ServedModel& model = *models_[which];
    switch (random() % 8) {
      case 0: kill_something(model); break;
      case 1: wait_settled(); break;
      case 2:  // unregistered and registered again
        models_[which].reset();
        models_[which] = make(which == 0 ? spec("large", 4) : spec("small", 1), 0);
        break;
      default: {
        const int most = which == 0 ? 2 : 8;
        const auto refused = scale(model, static_cast<int>(random() % (static_cast<unsigned>(most) + 2)));
        if (refused) {
          ASSERT_EQ(refused->code(), Code::kResourceExhausted) << refused->message();
        }
      }
    }
  }
  void kill_something(ServedModel& model) {
    std::vector<pid_t> pids;
    for (const auto& worker : model.workers()) pids.insert(pids.end(), worker.pids.begin(), worker.pids.end());
    if (!pids.empty()) ::kill(pids[random() % pids.size()], SIGKILL);
  }
  void wait_settled() {
    // kFailed: a rank was killed before its group had loaded for the first time.
    for (const auto& model : models_) ASSERT_NE(model->wait_loaded(soon()).state, LoadState::kLoading);
  }
  [[nodiscard]] int num_used() const { return devices.num_devices() - devices.num_free(); }
  // Only step() takes devices, so between two looks some may become free, but none can change hands.
  void check_holders() const {
    const int used = num_used();
    std::map<std::string, std::string> holders, seen_by;  // device -> model and group
    for (const auto& model : models_) {
      for (const auto& worker : model->workers()) {
        const std::string holder = fmt::format("{} {}", model->name(), worker.group);
        for (const std::string& device : worker.devices) {
          ASSERT_TRUE(holders.emplace(device, holder).second) << "device " << device << " is held by " << holders[device] << " and " << holder;
        }
        for (const pid_t pid : worker.pids) {
          for (const std::string& device : split(variable_of(pid, "CUDA_VISIBLE_DEVICES").value_or(""))) {
            ASSERT_EQ(seen_by.emplace(device, holder).first->second, holder) << "a process of another group still sees device " << device;
          }
        }
      }
    }
    ASSERT_LE(static_cast<int>(holders.size()), used);
  }
  // A group gives up its devices a moment before they are free, and one that has failed to load does not wait for the others.
  void check_nothing_lost() const {
    const auto held = [&] {
      size_t sum = 0;
      for (const auto& model : models_) {
        for (const auto& worker : model->workers()) sum += worker.devices.size();
      }
      return static_cast<int>(sum);
    };
    const Deadline deadline = soon();
    while (held() != num_used() && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
    ASSERT_EQ(held(), num_used());
  }

  std::mt19937 random{5};
  std::vector<std::shared_ptr<ServedModel>> models_;
};

TEST_F(DeviceSoak, NoDeviceIsHeldTwiceOrLostThroughAThousandRandomChanges) {
  spdlog::set_level(spdlog::level::off);
  models_ = {make(spec("large", 4), 1), make(spec("small", 1), 2)};
  for (int round = 0; round < 1000; ++round) {
    ASSERT_NO_FATAL_FAILURE(step()) << "round " << round;
    ASSERT_NO_FATAL_FAILURE(check_holders()) << "round " << round;
    if (round % 50 != 49) continue;
    ASSERT_NO_FATAL_FAILURE(wait_settled());
    ASSERT_NO_FATAL_FAILURE(check_nothing_lost()) << "round " << round;
  }
  for (const auto& model : models_) ASSERT_FALSE(scale(*model, 0));
  ASSERT_NO_FATAL_FAILURE(wait_settled());
  ASSERT_NO_FATAL_FAILURE(check_nothing_lost());
  EXPECT_EQ(devices.num_free(), 8);
}

}  // namespace
}  // namespace penstock::frontend
