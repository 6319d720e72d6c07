#include "cluster/program_identity.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace penstock::cluster {
namespace {

TEST(ProgramIdentity, IsWhatTheLinkerWroteIntoTheProgram) {
  const std::string id = program_build_id();
  ASSERT_GE(id.size(), 16u) << id;
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos) << id;
  std::string bytes;
  for (size_t i = 0; i < id.size(); i += 2) bytes += static_cast<char>(std::stoi(id.substr(i, 2), nullptr, 16));
  EXPECT_NE(read_file("/proc/self/exe", size_t{1} << 30).value().find(bytes), std::string::npos);
}

}  // namespace
}  // namespace penstock::cluster
