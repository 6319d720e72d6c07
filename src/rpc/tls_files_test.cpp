#include "rpc/tls_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstring>
#include <memory>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::rpc {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// What `write` writes to a BIO.
template <typename Write>
std::string pem(Write write) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), &BIO_free);
  write(bio.get());
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
Key make_key() { return {EVP_EC_gen("P-256"), &EVP_PKEY_free}; }

// With a password unless it is null.
std::string text_of(const Key& key, const char* password = nullptr) {
  return pem([&](BIO* bio) {
    PEM_write_bio_PKCS8PrivateKey(bio, key.get(), password ? EVP_aes_256_cbc() : nullptr, password, password ? static_cast<int>(std::strlen(password)) : 0,
                                  nullptr, nullptr);
  });
}

// Signed with its own key.
std::string make_certificate(const Key& key) {
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), &X509_free);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_set_pubkey(certificate.get(), key.get());
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  return pem([&](BIO* bio) { PEM_write_bio_X509(bio, certificate.get()); });
}

class TlsFilesTest : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& text) {
    write_file_atomic(folder_.path() / name, text);
    return folder_.path() / name;
  }
  std::string refusal(const TlsPaths& paths) {
    const auto files = read_tls_files(paths);
    return files.ok() ? "accepted" : files.error().message();
  }
  TempDir folder_;
  const Key made_ = make_key();
  const std::string certificate_text_ = make_certificate(made_);
  const std::string certificate_ = file("cert.pem", certificate_text_);
  const std::string key_ = file("key.pem", text_of(made_));
};

TEST_F(TlsFilesTest, AreReadAsTheyAre) {
  const auto files = read_tls_files({certificate_, key_, certificate_});
  ASSERT_TRUE(files.ok()) << files.error().message();
  EXPECT_EQ(files.value().certificates, certificate_text_);
  EXPECT_EQ(files.value().private_key, text_of(made_));
  EXPECT_EQ(files.value().client_authorities, certificate_text_);
  EXPECT_EQ(read_tls_files({certificate_, key_, ""}).value().client_authorities, "");
}

TEST_F(TlsFilesTest, EachThingThatIsWrongIsSaidWithItsKeyAndFile) {
  EXPECT_THAT(refusal({"/none/cert.pem", key_, ""}), AllOf(HasSubstr("key 'certificate_file': "), HasSubstr("/none/cert.pem")));
  EXPECT_THAT(refusal({certificate_, "/none/key.pem", ""}), AllOf(HasSubstr("key 'private_key_file': "), HasSubstr("/none/key.pem")));
  EXPECT_THAT(refusal({certificate_, key_, "/none/ca.pem"}), AllOf(HasSubstr("key 'client_ca_file': "), HasSubstr("/none/ca.pem")));
  EXPECT_THAT(refusal({folder_.path(), key_, ""}), HasSubstr("key 'certificate_file': "));
  EXPECT_THAT(refusal({key_, key_, ""}), HasSubstr("key.pem: expected a certificate in PEM form"));
  EXPECT_THAT(refusal({certificate_, certificate_, ""}), HasSubstr("cert.pem: expected a private key in PEM form"));
  EXPECT_THAT(refusal({certificate_, file("empty", ""), ""}), HasSubstr("expected a private key in PEM form"));
  EXPECT_THAT(refusal({certificate_, file("other.pem", text_of(make_key())), ""}), AllOf(HasSubstr("other.pem: is not the key of the certificate in "), HasSubstr("cert.pem")));
  EXPECT_THAT(refusal({certificate_, file("locked.pem", text_of(made_, "secret")), ""}), HasSubstr("locked.pem: expected a key without a password"));
  EXPECT_THAT(refusal({certificate_, key_, file("noise", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}), HasSubstr("key 'client_ca_file': "));
  EXPECT_THAT(refusal({certificate_.substr(0, 3), key_, ""}), HasSubstr("key 'certificate_file': "));
}

}  // namespace
}  // namespace penstock::rpc
